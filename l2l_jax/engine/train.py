"""The loop of one phase, for every phase of every experiment."""

import contextlib
import logging
import time
from collections.abc import Mapping

import jax
import numpy as np

from l2l_jax.engine import measure, token_bank
from l2l_jax.engine.experiment import Experiment, counted
from l2l_jax.engine.step import State, UpdateRule, make_update, shard_update
from l2l_jax.lib import flops, hosts, trees
from l2l_jax.lib.errors import NonFinite, Preempted
from l2l_jax.lib.profiler import Profile, peak_memory
from l2l_jax.lib.progress import Clock
from l2l_jax.types import Array, Params
from l2l_jax.workdir.metrics import Writer

log = logging.getLogger(__name__)

MUCH = 0.1  # of its beginning left in a moving average
ASK_EVERY = 10  # steps at which several processes ask each other whether one was told to stop


def train(
    phase: str, experiment: Experiment, start: Params, original: Params
) -> tuple[Params, int, int]:
    """Runs or continues a phase; returns (all parameters, on the mesh; steps done; of).

    start: the parameters the phase begins with; original: the teacher. Raises Preempted after
    saving on SIGTERM, NonFinite at the first number that is not finite, NotSaved on a full disk.
    """
    settings, runtime = experiment.config[phase], experiment.config["runtime"]
    total = settings["steps"]
    with contextlib.ExitStack() as stack:
        # 1. What a step does, and what it starts from: the newest whole checkpoint, or `start`.
        recipe, sides = experiment.recipe(phase), experiment.training(phase)
        abstract = experiment.abstract_state(phase)
        checkpoints = experiment.checkpoints(phase, writes=True)
        stack.callback(checkpoints.close)
        state = experiment.saved_state(phase, checkpoints)
        if state is None:
            state = experiment.initial_state(phase, start)
        first, last = counted(state, total)
        if first == last and not measure.boundary_missing(recipe, experiment):
            log.info("%s: done already, %d steps", phase, first)
            return start | state.result, first, last
        if 0 < first < last:
            log.info("%s: continuing from step %d of %d", phase, first, total)
        began = time.perf_counter()
        rows, noise = token_bank.beforehand(phase, experiment, sides, start)
        recipe, salient = measure.resolve_arguments(
            recipe, experiment, rows, start, original, noise
        )
        spent = time.perf_counter() - began
        fixed = recipe.fixed(start, original, noise, salient)

        # 2. One program for each task: masks of another size are another program.
        tasks = [experiment.task(name) for name in settings["tasks"]]
        updates = [make_update(recipe, *task, experiment.mesh) for task in tasks]
        shown = {side: experiment.abstract_images(settings["batch_size"]) for side in sides}
        work = np.mean([flops.count(update, abstract, fixed, shown) for update in updates])
        compiled = [shard_update(u, state, fixed, tuple(sides), experiment.mesh) for u in updates]
        _log_sizes(recipe, total, state, fixed, work)
        experiment.note(phase, step_flops=work)

        # 3. The loop. A step is dispatched, then the numbers of the one before it are fetched.
        writer = Writer(experiment.workdir, phase, first, runtime["tensorboard"])
        stack.callback(writer.close)
        clock = Clock(
            phase, first, total, settings["batch_size"] * len(sides), work, writer.seconds + spent
        )
        batches = stack.enter_context(contextlib.closing(experiment.batches(phase, rows, first)))
        at, count = runtime["profile_from"], runtime["profile_steps"]
        profile = Profile(experiment.workdir / "profile", at, count, first)
        stack.callback(lambda: profile.stop(state))
        stack.enter_context(experiment.stop.deferred())
        pending: tuple[int, dict[str, Array]] | None = None

        def settle() -> bool:
            """Fetches, checks and writes the pending step's numbers; whether it was the end."""
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
            over = settle()  # if so, the step just dispatched changed nothing, and has no number
            pending = None if over else (step, metrics)
            asked = hosts.single_process() or step % ASK_EVERY == 0
            preempted = asked and hosts.any_process(experiment.stop.raised)
            if over or preempted or step + 1 == total or (step + 1) % runtime["save_every"] == 0:
                over |= settle()  # a state is saved only once its numbers are known to be finite
                checkpoints.save(int(state.step), state.saved())
                experiment.note(phase, memory=peak_memory(experiment.noted(phase).get("memory", 0)))
            if preempted:
                checkpoints.wait()
                raise Preempted(f"{phase}, step {int(state.step)} of {total}")
            if over:
                break
        checkpoints.wait()
        measure.note_boundaries(recipe, experiment, rows, state.result, fixed)
        return start | state.result, *counted(state, total)


def check_finite(metrics: Mapping[str, float], step: int, saved: list[int]) -> None:
    """NonFinite names what is wrong, where, and what is left."""
    bad = sorted(name for name, value in metrics.items() if not np.isfinite(value))
    if bad:
        since = f"step {step - 1} and step {step}" if step else "the start and step 0"
        left = f"Checkpoint {saved[-1]} is whole" if saved else "There is no checkpoint yet"
        raise NonFinite(
            f"{', '.join(bad)} became non-finite between {since}. {left}; lower optimizer.lr or "
            "set optimizer.clip, in another workdir."
        )


def _log_sizes(recipe: UpdateRule, total: int, state: State, fixed: Params, work: float) -> None:
    """Known before the first step allocates anything on top of it."""
    trained = f"{recipe.phase}: {trees.count(state.student):,} parameters are trained"
    sizes = {"of optimizer state": state.optimizer, "held fixed": jax.tree.leaves(fixed)}
    if recipe.ema:
        sizes = {"of their moving average": state.average, **sizes}
    told = [f"{trees.nbytes(tree) / 2**20:.0f} MiB {name}" for name, tree in sizes.items()]
    log.info("%s, %.3g GFLOP a step", ", ".join([trained, *told]), work / 1e9)
    if (left := recipe.ema**total) > MUCH:
        log.warning(
            "%s.ema=%s is slow for %d steps: in the moving average, which is the result, what the "
            "phase begins with will still count %.0f %%",
            *(recipe.phase, recipe.ema, total, 100 * left),
        )
