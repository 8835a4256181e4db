"""The phases in order, trained or restored, and which parameters they lead to."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from l2l_jax.engine import boundaries, provenance
from l2l_jax.engine.experiment import Experiment, load_original, without_data
from l2l_jax.engine.plan import Plan, resolve
from l2l_jax.engine.step import EndingState, State
from l2l_jax.lib import config_dicts, files, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Params
from l2l_jax.weights.safetensors import Weights
from l2l_jax.workdir import claim
from l2l_jax.workdir.layout import Workdir

Advance = Callable[[str, Experiment, Params, Params], tuple[Params, int, int]]
Counts = Mapping[str, tuple[int, int]]  # {phase: (steps completed, steps planned)}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of running all phases."""

    original: Params  # on the mesh
    final: Params  # on the mesh
    done: Counts


def run_phases(experiment: Experiment, advance: Advance) -> Outcome:
    """Goes through all phases in order.

    advance(phase, experiment, start, teacher) trains or restores one phase and returns
    (all parameters on the mesh, steps done, total steps).
    """
    original = params = experiment.initial_params()
    done: dict[str, tuple[int, int]] = {}
    reached: dict[str, Params] = {}  # at each boundary
    teachers = {planned.teacher for planned in experiment.plan.phases.values()}
    ended: dict[str, Params] = {}  # where each phase ended that is a teacher
    for phase, planned in experiment.plan.phases.items():
        start = boundaries.start_of(experiment, planned, reached, params)
        if all(count == total for count, total in done.values()):
            start = experiment.begin(phase, start)
        teacher = ended.get(planned.teacher, original)
        params, count, total = advance(phase, experiment, start, teacher)
        ended |= {phase: params} if phase in teachers else {}
        names = boundaries.of_phase(experiment, planned)
        reached |= {name: x for name, x in zip(names, (start, params), strict=True) if name}
        done[phase] = (count, total)
        if planned.method.MAKES_ORIGINAL:
            original = params
    return Outcome(original, params, done)


def restored(
    phase: str, experiment: Experiment, start: Params, teacher: Params
) -> tuple[Params, int, int]:
    """(parameters, steps done, total steps) of a phase's newest checkpoint; `start` if none.

    Damaged if the newest checkpoint is damaged: older parameters would be taken for the result.
    """
    del teacher
    return _restored(phase, experiment, start, only_newest=True)


def intact(
    phase: str, experiment: Experiment, start: Params, teacher: Params
) -> tuple[Params, int, int]:
    """As `restored`, of the newest checkpoint that is intact."""
    del teacher
    return _restored(phase, experiment, start, only_newest=False)


def _restored(
    phase: str, experiment: Experiment, start: Params, only_newest: bool
) -> tuple[Params, int, int]:
    checkpoints = experiment.checkpoints(phase, writes=False)
    try:
        state = experiment.saved_state(phase, checkpoints, only_newest)
    finally:
        checkpoints.close()
    total = experiment.plan.phases[phase].steps
    return (start, 0, total) if state is None else (start | state.result, *counted(state, total))


def counted(state: State, total: int) -> tuple[int, int]:
    """(steps done, total steps); the total is smaller if the method ended the phase itself."""
    done = int(state.step)
    ended = isinstance(state, EndingState) and bool(state.ended)
    return done, done if ended else total


def describe_parameters(plan: Plan, done: Counts) -> str:
    """Which parameters the phases lead to, in words."""
    for at, (phase, (count, total)) in reversed(list(enumerate(done.items()))):
        if plan.phases[phase].method.begin and all(n == m for n, m in list(done.values())[:at]):
            return f"where phase {phase} ends"
        ema, planned = plan.phases[phase].ema, plan.phases[phase].steps
        if count and ema:
            updates = count - (count == total < planned)  # the step that finds the end is none
            initial_share = ema**updates
            words = [f"moving average of phase {phase}, decay {ema}"]
            words += [f"at step {count} of {total}"] if count < total else []
            if initial_share >= 0.005:
                words += [f"{initial_share:.0%} of it what the phase began with"]
            return ", ".join(words)
        if count:
            at = "last step" if count == total else f"step {count} of {total}"
            return f"{at} of phase {phase}"
    loaded = plan.config["weights"]
    return f"as loaded from {loaded}" if loaded else "a random initialisation"


def open_workdir(folder: Path) -> Experiment:
    """The experiment of a workdir without its data, for one copy of the parameters.

    ConfigError if the folder holds no run, or if the original is another one now.
    """
    Workdir(folder).check_kinds()
    config = Workdir(folder).read_config()
    config["runtime"]["fsdp"] = 1  # wherever it was trained, it is read here
    plan = resolve(config)
    original = load_original(plan)
    if original:
        claim.check_original(folder, original.digest)
    return without_data(plan, folder, original)


def read_run(folder: Path, partial: bool = False) -> tuple[Experiment, Outcome]:
    """The experiment of a workdir, without its data, and the result of its newest checkpoints.

    ConfigError if a phase is not finished, unless partial, or if the original is another one now.
    Damaged if a newest checkpoint is damaged, unless partial.
    """
    experiment = open_workdir(folder)
    outcome = run_phases(experiment, intact if partial else restored)
    unfinished = [(p, *counts) for p, counts in outcome.done.items() if counts[0] < counts[1]]
    if unfinished and not partial:
        states = [f"{phase} is at step {done} of {total}" for phase, done, total in unfinished]
        raise ConfigError(
            f"{folder} is not finished: {', '.join(states)}. Run its command again, or say "
            "--partial (in Python: partial=True) to take what there is."
        )
    return experiment, outcome


def final_weights(folder: Path, partial: bool = False) -> Weights:
    """The last checkpoint of a workdir: canonical layout, on the host. Raises as read_run does."""
    return weights_of(*read_run(folder, partial))


def weights_of(experiment: Experiment, outcome: Outcome) -> Weights:
    """The final parameters of a run with where they come from."""
    plan, model = experiment.plan, experiment.model
    decisive = config_dicts.decisive(experiment.workdir.read_config())
    final = experiment.canonical(outcome.final)
    about: dict[str, Any] = {"model": plan.model.plugin.name}
    about["args"] = dict(plan.model.args) | model.inferred_args(final)
    steps = {phase: done for phase, (done, _) in outcome.done.items()}
    records = experiment.workdir.read_splits()
    about["source"] = {
        "config": files.digest_of_lines([json.dumps(decisive, sort_keys=True)]),
        "steps": steps,
        "training": provenance.training_of(plan, records, steps, experiment.weights),
        "result": describe_parameters(plan, outcome.done),
        "original": trees.digest(experiment.canonical(outcome.original)),
        "code": files.code_digest(),
    }
    return Weights(final, about)
