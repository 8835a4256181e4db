"""Phases that are solved in one step from sums over all their images: methods with `examples`.

The sums of a phase over all images (on="all") are kept in the workdir. A later phase of the same
method on the retain images subtracts those of the forget images from them. Retain and forget images
are always read in the same batches, each side by itself, so that their features are the same to the
last bit whichever of the two ways is taken.
"""

import dataclasses
import functools
import logging
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.data.images import at_size
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.plan import PhasePlan, TaskPlan
from l2l_jax.lib import hosts, pixels, ridge, sharding, trees
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import CannotRun, ConfigError
from l2l_jax.types import Array, Batch, Params
from l2l_jax.workdir.metrics import Writer

log = logging.getLogger(__name__)

BATCH = 64  # images at a time


def check(experiment: Experiment, planned: PhasePlan) -> None:
    """ConfigError if the model cannot be fitted so, or several processes run."""
    if not planned.method.examples:
        return
    if not hosts.single_process():
        raise ConfigError(f"{planned.name}: {planned.method.name} runs in one process.")
    if planned.on == "proxy" or planned.ema or planned.saliency < 1 or planned.stop:
        raise ConfigError(
            f"{planned.name}: {planned.method.name} is solved in one step. Set on to retain or "
            "all, and leave ema, saliency and stop as they are."
        )
    try:
        for task in planned.tasks:
            jax.eval_shape(_program(experiment, planned, task), experiment.model.template,
                           *_shapes(experiment))  # fmt: skip
    except CannotRun as error:
        name = experiment.plan.model.plugin.name
        raise ConfigError(
            f"{planned.name}: {planned.method.name} cannot fit the model {name}: {error}."
        ) from error


def fit(phase: str, experiment: Experiment, start: Params) -> tuple[Params, int, int]:
    """Solves a phase, or restores its solution: (parameters on the mesh, 1, 1)."""
    planned = experiment.plan.phases[phase]
    checkpoints = experiment.checkpoints(phase, writes=True)
    try:
        state = experiment.saved_state(phase, checkpoints)
        if state is None:
            sums = _sums(experiment, planned, start)
            path = experiment.workdir.sums(phase)
            if planned.on == "all":
                ridge.save(path, sums)
            state = experiment.initial_state(phase, _with(experiment, planned, start, sums))
            state = dataclasses.replace(state, step=state.step + 1)
            writer = Writer(experiment.workdir.folder, phase, 0, False)
            writer.scalars(0, {"retain": 0.0, "seconds": 0.0})
            writer.close()
            checkpoints.save(1, state.saved())
            checkpoints.wait()
            experiment.note(phase, step_flops=0)
    finally:
        checkpoints.close()
    return start | state.result, 1, 1


def _sums(experiment: Experiment, planned: PhasePlan, start: Params) -> ridge.Sums:
    """The sums over the images of a phase, by subtraction if those of all images were kept."""
    over = functools.partial(_over, experiment, planned, start)
    if planned.on == "all":
        return over("retain") + over("forget") if "forget" in experiment.splits else over("retain")
    for earlier in experiment.plan.earlier(planned.name):
        same = earlier.method.name == planned.method.name and earlier.tasks == planned.tasks
        kept = ridge.load(experiment.workdir.sums(earlier.name)) if same else None
        if kept is not None:
            log.info("%s: the forget images are taken out of the sums of %s", planned.name,
                     earlier.name)  # fmt: skip
            return kept - over("forget")
    return over("retain")


def _with(experiment: Experiment, planned: PhasePlan, start: Params, sums: ridge.Sums) -> Params:
    """All parameters on the mesh, with the solution in place of the last layer."""
    assert planned.method.solve
    flat = trees.flatten(experiment.canonical(start))
    solution = planned.method.solve(sums, start, **planned.args)
    wrong = [name for name in solution if flat[name].shape != solution[name].shape]
    assert not wrong, f"the solution does not fit {wrong}"
    return experiment.place(trees.unflatten(flat | dict(solution)))


def _over(experiment: Experiment, planned: PhasePlan, params: Params, side: str) -> ridge.Sums:
    """The sums over all images of a side, under one mask for each task."""
    split, total = experiment.splits[side], None
    source, size = experiment.sources[split.part], experiment.model.image_size
    for task in planned.tasks:
        program = jax.jit(_program(experiment, planned, task))
        for at in range(0, len(split.keys), BATCH):
            rows = split.indices[at : at + BATCH]
            images = at_size(source, rows, size)
            keys = split.keys[at : at + BATCH]
            seeds = np.array([zlib.crc32(key.encode()) for key in keys], np.uint32)
            missing = BATCH - len(rows)
            images = np.concatenate([images, images[-1:].repeat(missing, 0)])
            seeds = np.concatenate([seeds, seeds[-1:].repeat(missing)])
            features, targets, counts = (
                np.asarray(x)[: len(rows)] for x in program(params, images, seeds)
            )
            weights = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            flat = [x.reshape(-1, x.shape[-1]) for x in (features, targets)]
            part = ridge.Sums.of(flat[0], flat[1], weights.ravel())
            total = part if total is None else total + part
    assert total is not None
    return total


def _program(
    experiment: Experiment, planned: PhasePlan, task: TaskPlan
) -> Callable[[Params, Array, Array], tuple[Array, Array, Array]]:
    """(params, uint8 images [B, H, W, 3], seeds [B]) -> what the method's `examples` returns."""
    model, method, seed = experiment.model, planned.method, experiment.plan.seed
    visible = task.task.visible(model.grid, **task.args)

    def program(params: Params, images: Array, seeds: Array) -> tuple[Array, Array, Array]:
        base = rngs.key(seed, method.name, task.name)

        def mask(number: Array) -> Array:
            return task.task.mask(rngs.fold(base, number), 1, model.grid, **task.args)[0]

        batch = Batch(pixels.to_unit_range(images), jax.vmap(mask)(seeds), visible)
        assert method.examples
        return method.examples(model, params, batch, rngs.fold(base, "corrupt"))

    return sharding.on(experiment.mesh, program)


def _shapes(experiment: Experiment) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    size = experiment.model.image_size
    pictures = jax.ShapeDtypeStruct((BATCH, size, size, 3), jnp.uint8)
    return pictures, jax.ShapeDtypeStruct((BATCH,), jnp.uint32)
