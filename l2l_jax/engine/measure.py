"""Looking at a phase's batches without moving: what it has to know before it begins, or leaves.

A method may end when a metric reaches what it is for a retrained model (paper B's lambda), a solver
may need the forget objective where phases before it ended (paper C's epsilon), and with
`saliency` < 1 only the parameters with the largest forget gradient move (Fan et al., SalUn, ICLR
2024: half of them, by the absolute value of the gradient summed over the forget set, one threshold
for all; there over the whole set, here over BATCHES of the phase's batches). What is found is noted
in the workdir, so that a continued run knows it too.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.data import loader
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.step import UpdateRule, make_objectives
from l2l_jax.lib import hosts, sharding
from l2l_jax.types import Array, Params

log = logging.getLogger(__name__)

BATCHES = 32  # that a mean is taken over


def resolve_arguments(
    recipe: UpdateRule,
    experiment: Experiment,
    rows: Mapping[str, loader.TrainInput],
    start: Params,
    original: Params,
    noise: Array | None,
) -> tuple[UpdateRule, Params | None]:
    """(the recipe with what had to be found out put in, which values may move or None: all).

    start: all groups the phase begins with. ConfigError as the solver's `resolved` raises it.
    """
    phase = recipe.phase
    if recipe.solver.resolve:
        found = {}
        for earlier in experiment.earlier(phase):
            noted = experiment.noted(earlier)
            found |= {noted["boundary"]: noted["forget"]} if "boundary" in noted else {}
        args = recipe.solver.resolve(found, **recipe.solver_args)
        recipe = dataclasses.replace(recipe, solver_args=args)
    metric, argument = recipe.method.UNTIL or ("", "")
    if metric and not recipe.args[argument] and experiment.reference:
        noted = experiment.noted(phase)
        if argument not in noted:
            retrained = experiment.placed(experiment.reference.params)
            student = {group: retrained[group] for group in recipe.method.TRAINABLE}
            fixed = recipe.fixed(retrained, original, noise)
            value = mean_gradients(recipe, experiment, rows, student, fixed)[1][metric]
            experiment.note(phase, **{argument: value})
        value = experiment.noted(phase)[argument]
        log.info(
            "%s: %s of the retrained model is %.4g, and this phase's aim", phase, metric, value
        )
        recipe = dataclasses.replace(recipe, args={**recipe.args, argument: value})
    share = experiment.config[phase]["saliency"]
    if share == 1:
        return recipe, None
    student = {group: start[group] for group in recipe.method.TRAINABLE}
    fixed = recipe.fixed(start, original, noise)
    (gradient,), _ = mean_gradients(recipe, experiment, rows, student, fixed, (0.0, 1.0))
    return recipe, largest(gradient, share)


def boundary_missing(recipe: UpdateRule, experiment: Experiment) -> bool:
    """Whether it is still to be noted where a phase ended whose solver asks for it."""
    return recipe.solver.boundary is not None and "forget" not in experiment.noted(recipe.phase)


def note_boundaries(
    recipe: UpdateRule,
    experiment: Experiment,
    rows: Mapping[str, loader.TrainInput],
    result: Params,
    fixed: Params,
) -> None:
    """Notes both objectives where the phase ended, if its solver finds boundaries or keeps to one.

    result: the trainable groups that it hands on, so the moving average if there is one: that is
    the model that the next phase begins with, or the run ends with.
    """
    if not boundary_missing(recipe, experiment):
        return
    _, found = mean_gradients(recipe, experiment, rows, result, fixed)
    values = {side: found[side] for side in ("retain", "forget")}
    solver, args = recipe.solver, recipe.solver_args
    assert solver.boundary
    assert solver.bound
    name, bound = solver.boundary(**args), solver.bound(**args)
    about = {"boundary": name} if name else {"bound": bound}
    experiment.note(recipe.phase, **about, **values)
    log.info("%s: %s, where it ended", recipe.phase, {"forget": found["forget"], **about})


def mean_gradients(
    recipe: UpdateRule,
    experiment: Experiment,
    rows: Mapping[str, loader.TrainInput],
    student: Params,
    fixed: Params,
    *weights: tuple[float, float],
) -> tuple[list[Params], dict[str, float]]:
    """Mean gradients of r * retain + f * forget for each (r, f), and mean metrics, over batches.

    student: the trainable groups; fixed: as UpdateRule.fixed makes it. The images are those of the
    phase's first steps, masks and noise drawn anew.
    """
    phase = recipe.phase
    anew = dataclasses.replace(recipe, phase=f"{phase}, looked at")
    of = jax.tree.map(lambda x: x.sharding, student)
    out = ([of] * len(weights), sharding.replicated(experiment.mesh))

    def compiled(task: str) -> Any:
        at_step = make_objectives(anew, *experiment.task(task), experiment.mesh)

        def look(step: Array, student: Params, fixed: Params, images: dict[str, Array]) -> Any:
            return at_step(step, fixed, images).gradients(student, *weights)

        return jax.jit(look, out_shardings=out)

    programs = [compiled(task) for task in experiment.config[phase]["tasks"]]
    total = None
    with contextlib.closing(experiment.batches(phase, rows, 0)) as batches:
        for step in range(BATCHES):
            images = next(batches)
            found = programs[step % len(programs)](np.int32(step), student, fixed, images)
            total = found if total is None else jax.tree.map(jnp.add, total, found)
            jax.block_until_ready(total)  # programs over several CPU devices starve each other
    gradients, metrics = jax.tree.map(lambda x: x / BATCHES, total)
    return gradients, {name: float(value) for name, value in jax.device_get(metrics).items()}


def largest(gradient: Params, share: float) -> Params:
    """Bools like the gradient, True for that share of all its values with the largest absolutes.

    False where it is zero, also if that leaves fewer.
    """
    host = [np.abs(leaf) for leaf in jax.tree.leaves(hosts.gather(gradient))]
    values = np.concatenate([leaf.ravel() for leaf in host])
    at = max(0, len(values) - round(share * len(values)))
    threshold = np.partition(values, at)[at] if at < len(values) else np.inf
    masks = jax.tree.unflatten(
        jax.tree.structure(gradient), [(leaf >= threshold) & (leaf > 0) for leaf in host]
    )
    return sharding.place(masks, jax.tree.map(lambda x: x.sharding, gradient))
