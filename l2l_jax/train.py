"""The loop of one phase, for every phase of every experiment."""

import logging
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from l2l_jax import step as steps
from l2l_jax.experiment import Experiment
from l2l_jax.lib import flops, images, loader, preemption, sharding, trees
from l2l_jax.lib.clock import Clock
from l2l_jax.lib.errors import NonFinite
from l2l_jax.lib.rng import seed_of
from l2l_jax.lib.splits import Split
from l2l_jax.lib.writers import Writer
from l2l_jax.types import Array, Params

log = logging.getLogger(__name__)


def train(phase: str, experiment: Experiment, start: Params, original: Params) -> Params:
    """Runs or continues a phase; returns all parameters after it, on the mesh.

    start: the parameters the phase begins with; original: the teacher. Raises Preempted after
    saving on SIGTERM, NonFinite at the first number that is not finite, NotSaved on a full disk.
    """
    settings, runtime = experiment.config[phase], experiment.config["runtime"]
    mesh, total = experiment.mesh, settings["steps"]

    # 1. What a step does, and what it starts from: the newest whole checkpoint, or `start`.
    recipe = experiment.recipe(phase)
    sides = experiment.training(phase)
    abstract = sharding.abstract(mesh, jax.eval_shape(recipe.init, experiment.model.template))
    checkpoints = experiment.checkpoints(phase)
    state = checkpoints.restore(abstract)
    if state is None:
        init = jax.jit(recipe.init, out_shardings=jax.tree.map(lambda x: x.sharding, abstract))
        state = init(start)
    first = int(state.step)
    if first == total:
        log.info("%s: done already, %d steps", phase, total)
        checkpoints.close()
        return start | state.student
    if first:
        log.info("%s: continuing from step %d of %d", phase, first, total)
    fixed = recipe.fixed(start, original)

    # 2. One compiled update for each task: masks of another size are another program.
    updates = [
        steps.make_update(recipe, *experiment.task(name), mesh) for name in settings["tasks"]
    ]
    shown = {s: _abstract_images(experiment, settings["batch_size"]) for s in sides}
    work = [flops.count(update, abstract, fixed, shown) for update in updates]
    compiled = [
        steps.compile_update(update, state, fixed, tuple(sides), mesh) for update in updates
    ]
    _log_sizes(phase, state, fixed, sum(work) / len(work))

    # 3. The loop. A step is dispatched, then the numbers of the one before it are fetched.
    writer = Writer(experiment.workdir, phase, first, runtime["tensorboard"])
    examples = settings["batch_size"] * len(sides)
    clock = Clock(phase, first, total, examples, sum(work) / len(work), writer.seconds)
    batches = _batches(phase, experiment, sides, first)
    pending: tuple[int, dict[str, Array]] | None = None

    def settle() -> None:
        """Fetches, checks and writes the numbers of the pending step."""
        nonlocal pending
        if pending is not None:
            step, metrics = pending[0], {k: float(v) for k, v in jax.device_get(pending[1]).items()}
            check_finite(metrics, step, checkpoints.steps())
            writer.scalars(step, metrics | clock.rates(step) | {"seconds": clock.seconds})
            clock.report(step, metrics, runtime["log_every"])
            pending = None

    try:
        for step in range(first, total):
            _profile(experiment, step, total)
            with clock.waiting():
                rows = next(batches)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = compiled[step % len(compiled)](state, fixed, rows)
            if step < first + len(compiled):
                clock.compiled(step)
            settle()
            pending = step, metrics
            preempted = preemption.agreed(experiment.stop, step)
            if preempted or step + 1 == total or (step + 1) % runtime["save_every"] == 0:
                settle()  # a state is saved only once its numbers are known to be finite
                checkpoints.save(step + 1, state)
            if preempted:
                checkpoints.wait()
                raise preemption.Preempted(f"{phase}, step {step + 1} of {total}")
        checkpoints.wait()
    finally:
        batches.close()
        writer.close()
        checkpoints.close()
    return start | state.student


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


def _batches(
    phase: str, experiment: Experiment, sides: Mapping[str, Split], first: int
) -> Iterator[dict[str, Array]]:
    """{side: uint8 [B, H, W, 3] on the mesh} from step `first` on; B = batch_size."""
    data, size = experiment.config["data"], experiment.config[phase]["batch_size"]
    augment = images.augmentation(experiment.model.image_size, tuple(data["crop"]), data["flip"])
    place = sharding.batch(experiment.mesh)
    streams = {}
    for side, split in sides.items():
        picked = loader.Picked(experiment.sources[split.part], split.indices)
        seed = seed_of(experiment.config["seed"], phase, side)
        streams[side] = loader.train_batches(picked, augment, size, seed, first, experiment.host)
    try:
        while True:
            rows = {side: next(stream) for side, stream in streams.items()}
            yield jax.tree.map(lambda x: jax.make_array_from_process_local_data(place, x), rows)
    finally:
        for stream in streams.values():
            stream.close()


def _abstract_images(experiment: Experiment, batch: int) -> jax.ShapeDtypeStruct:
    size = experiment.model.image_size
    return jax.ShapeDtypeStruct((batch, size, size, 3), np.uint8)


def _log_sizes(phase: str, state: steps.State, fixed: Params, work: float) -> None:
    """Known before the first step allocates anything on top of it."""
    trained, optimizer = trees.count(state.student), trees.nbytes(state.optimizer) / 2**20
    held = trees.nbytes(jax.tree.leaves(fixed)) / 2**20
    log.info("%s: %s parameters are trained, %.0f MiB of optimizer state, %.0f MiB held fixed, "
             "%.3g GFLOP a step", phase, f"{trained:,}", optimizer, held, work / 1e9)  # fmt: skip


def _profile(experiment: Experiment, step: int, total: int) -> None:
    """Traces runtime.profile_steps steps into workdir/profile, from runtime.profile_from on."""
    runtime = experiment.config["runtime"]
    first, count = runtime["profile_from"], runtime["profile_steps"]
    last = min(first + count, total - 1)
    if first < last and step == first:
        jax.profiler.start_trace(str(experiment.workdir / "profile"))
    if first < last and step == last:
        jax.profiler.stop_trace()
