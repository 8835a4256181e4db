"""The training loop of one phase; the same for every phase of every experiment."""

import contextlib
import logging
import time
from collections.abc import Mapping

import jax
import numpy as np

from l2l_jax.engine import fitting, measure, token_bank
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.outcome import counted
from l2l_jax.engine.step import State, UpdateRule, make_update, shard_update
from l2l_jax.engine.training_sets import training_splits
from l2l_jax.lib import flops, precision, trees
from l2l_jax.lib.errors import NonFinite
from l2l_jax.lib.profiler import Profile, peak_memory
from l2l_jax.lib.progress import Progress
from l2l_jax.types import Array, Params
from l2l_jax.workdir.metrics import Writer

log = logging.getLogger(__name__)

MAX_INITIAL_SHARE = 0.1  # of a moving average; more is worth a warning


def train(
    phase: str, experiment: Experiment, start: Params, teacher: Params
) -> tuple[Params, int, int]:
    """Runs or continues a phase. Returns (parameters on the mesh, steps done, total steps).

    start: the parameters that the phase begins with. Raises Preempted after saving on SIGTERM or
    Ctrl-C, NonFinite at the first value that is not finite, NotSaved on a full disk.
    """
    planned, runtime = experiment.plan.phases[phase], experiment.config["runtime"]
    total = planned.steps
    if planned.method.begin:  # it takes no step
        return start, 0, 0
    if planned.method.examples:
        return fitting.fit(phase, experiment, start)
    with contextlib.ExitStack() as stack:
        # 1. What a step does, and what it starts from: the newest whole checkpoint, or `start`.
        rule, sides = experiment.update_rule(phase), training_splits(experiment, phase)
        abstract = experiment.abstract_state(phase)
        checkpoints = experiment.checkpoints(phase, writes=True)
        stack.callback(checkpoints.close)
        state = experiment.saved_state(phase, checkpoints)
        if state is None:
            state = experiment.initial_state(phase, start)
        first, last = counted(state, total)
        if first:
            experiment.stop.saved = _saved(phase, state, total)
        if first == last and measure.is_complete(experiment, planned):
            log.info("%s: done already, %d steps", phase, first)
            return start | state.result, first, last
        if 0 < first < last:
            log.info("%s: continuing from step %d of %d", phase, first, total)
        began = time.perf_counter()
        rows, noise = token_bank.prepare(phase, experiment, sides, start)
        rule, fixed = measure.resolve_arguments(rule, experiment, rows, start, teacher, noise)
        spent = time.perf_counter() - began

        # 2. One program for each task: masks of another size are another program.
        updates = [make_update(rule, task, experiment.mesh) for task in planned.tasks]
        batch = token_bank.abstract_batch(experiment, phase, sides)
        compiled = [shard_update(u, state, fixed, batch, experiment.mesh) for u in updates]
        shared = updates if precision.modern_gpu() else compiled  # the latter are traced already
        step_flops = float(np.mean([flops.count(x, abstract, fixed, batch) for x in shared]))
        _log_sizes(rule, total, state, fixed, step_flops)
        experiment.note(phase, step_flops=step_flops)

        if not total:
            log.info("%s starts at its solution: no step is taken", phase)
        # 3. The loop. A step is dispatched, then the metrics of the step before it are fetched.
        writer = Writer(experiment.workdir.folder, phase, first, runtime["tensorboard"])
        stack.callback(writer.close)
        clock = Progress(
            phase, first, total, planned.batch_size * len(sides), step_flops, writer.seconds + spent
        )
        batches = stack.enter_context(contextlib.closing(experiment.batches(phase, rows, first)))
        at, count = runtime["profile_from"], runtime["profile_steps"]
        profile = Profile(experiment.workdir.profile, at, count, first)
        stack.callback(lambda: profile.stop(state))
        pending: tuple[int, dict[str, Array]] | None = None

        def settle() -> bool:
            """Fetches, checks and writes the pending metrics; True if the phase has ended."""
            nonlocal pending
            if pending is None:
                return False
            step, values = pending[0], jax.device_get(pending[1])
            metrics = {name: float(value) for name, value in values.items()}
            check_finite(metrics, step, checkpoints.steps())
            writer.scalars(step, metrics | clock.rates(step) | {"seconds": clock.seconds})
            clock.report(step, metrics, runtime["log_every"])
            pending = None
            return metrics.get("ended", 0.0) > 0

        for step in range(first, last):
            profile.before(step, state)
            with clock.waiting():
                images = next(batches)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = compiled[step % len(compiled)](state, fixed, images)
            if step < first + len(compiled):
                clock.compiled(step)
            if step + 1 == first + len(compiled):  # from now on there is something to save
                stack.enter_context(experiment.stop.deferred(phase))
            ended = settle()  # if so, the step just dispatched changed nothing, and has no metrics
            pending = None if ended else (step, metrics)
            preempted = experiment.stop.reached(step)
            if ended or preempted or step + 1 == total or (step + 1) % runtime["save_every"] == 0:
                ended |= settle()  # a state is saved only once its metrics are known to be finite
                checkpoints.save(int(state.step), state.saved())
                experiment.note(phase, memory=peak_memory(experiment.noted(phase).get("memory", 0)))
            if preempted:
                checkpoints.wait()
                raise experiment.stop.preempted(_saved(phase, state, total))
            if ended:
                break
        checkpoints.wait()
        experiment.stop.saved = _saved(phase, state, total)
        measure.note_end(rule, experiment, rows, state.result, fixed)
        return start | state.result, *counted(state, total)


def _saved(phase: str, state: State, total: int) -> str:
    """What is on disk of a phase, in words."""
    return f"{phase} is saved up to step {int(state.step)} of {total}"


def check_finite(metrics: Mapping[str, float], step: int, saved: list[int]) -> None:
    """Raises NonFinite: which metrics, between which steps, and which checkpoint is intact."""
    bad = sorted(name for name, value in metrics.items() if not np.isfinite(value))
    if bad:
        interval = f"step {step - 1} and step {step}" if step else "the start and step 0"
        intact = f"Checkpoint {saved[-1]} is intact" if saved else "There is no checkpoint yet"
        raise NonFinite(
            f"{', '.join(bad)} became non-finite between {interval}. {intact}; lower "
            "optimizer.lr or set optimizer.clip, in another workdir."
        )


def _log_sizes(
    rule: UpdateRule, total: int, state: State, fixed: Params, step_flops: float
) -> None:
    """Logs parameter counts and memory before the first step allocates anything on top of it."""
    trained = f"{rule.phase}: {trees.count(state.student):,} parameters are trained"
    sizes = {"of optimizer state": state.optimizer, "held fixed": jax.tree.leaves(fixed)}
    if rule.ema:
        sizes = {"of their moving average": state.average, **sizes}
    parts = [f"{trees.nbytes(tree) / 2**20:.0f} MiB {name}" for name, tree in sizes.items()]
    log.info("%s, %.3g GFLOP a step", ", ".join([trained, *parts]), step_flops / 1e9)
    if total and (initial_share := rule.ema**total) > MAX_INITIAL_SHARE:
        log.warning(
            "%s.ema=%s is slow for %d steps: in the moving average, which is the result, what the "
            "phase begins with will still count %.0f %%",
            *(rule.phase, rule.ema, total, 100 * initial_share),
        )
