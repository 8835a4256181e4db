"""What a phase must measure before it starts, and what is measured where it ends.

A method may end when a metric reaches the value that it has for a retrained model (lambda of paper
B). A solver may need the forget objective at the end of earlier phases (epsilon of paper C). With
`saliency` < 1 only the parameters with the largest forget gradient move (Fan et al., SalUn, ICLR
2024: half of them, by the absolute value of the gradient summed over the forget set, one threshold
for all; there over the whole set, here over BATCHES of the phase's batches). Values are noted in
the workdir, so that a continued run uses the same ones.
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
from l2l_jax.engine.plan import TaskPlan
from l2l_jax.engine.step import UpdateRule, make_objectives
from l2l_jax.lib import hosts, sharding
from l2l_jax.types import Array, Params

log = logging.getLogger(__name__)

BATCHES = 32  # in a mean


def resolve_arguments(
    rule: UpdateRule,
    experiment: Experiment,
    rows: Mapping[str, loader.TrainInput],
    start: Params,
    original: Params,
    noise: Array | None,
) -> tuple[UpdateRule, Params | None]:
    """Returns (the rule with all measured arguments, bools like the student: which values move).

    start: all groups that the phase begins with. The bools are None if all values move. Raises
    ConfigError if the solver's `resolve` does.
    """
    rule = _with_boundaries(rule, experiment)
    rule = _with_stopping_value(rule, experiment, rows, original, noise)
    share = experiment.plan.phases[rule.phase].saliency
    if share == 1:
        return rule, None
    student = {group: start[group] for group in rule.method.TRAINABLE}
    fixed = rule.fixed(start, original, noise)
    (gradient,), _ = mean_gradients(rule, experiment, rows, student, fixed, (0.0, 1.0))
    return rule, largest(gradient, share)


def _with_boundaries(rule: UpdateRule, experiment: Experiment) -> UpdateRule:
    """The rule with the solver arguments that depend on where earlier phases ended."""
    if not rule.solver.resolve:
        return rule
    boundaries = {}
    for earlier in experiment.plan.earlier(rule.phase):
        noted = experiment.noted(earlier.name)
        if "boundary" in noted:
            boundaries[noted["boundary"]] = noted["forget"]
    args = rule.solver.resolve(boundaries, **rule.solver_args)
    return dataclasses.replace(rule, solver_args=args)


def _with_stopping_value(
    rule: UpdateRule,
    experiment: Experiment,
    rows: Mapping[str, loader.TrainInput],
    original: Params,
    noise: Array | None,
) -> UpdateRule:
    """The rule with the argument of UNTIL measured on the retrained model, if it is 0."""
    if not rule.method.UNTIL or not experiment.reference:
        return rule
    phase, (metric, argument) = rule.phase, rule.method.UNTIL
    if rule.args[argument]:
        return rule
    if argument not in experiment.noted(phase):
        retrained = experiment.place(experiment.reference.params)
        student = {group: retrained[group] for group in rule.method.TRAINABLE}
        fixed = rule.fixed(retrained, original, noise)
        _, metrics = mean_gradients(rule, experiment, rows, student, fixed)
        experiment.note(phase, **{argument: metrics[metric]})
    value = experiment.noted(phase)[argument]
    log.info("%s ends when %s reaches %.4g, its mean for the retrained model", phase, metric, value)
    return dataclasses.replace(rule, args={**rule.args, argument: value})


def boundary_missing(rule: UpdateRule, experiment: Experiment) -> bool:
    """Whether the phase's solver needs the objectives at its end, and they are not noted yet."""
    return rule.solver.boundary is not None and "forget" not in experiment.noted(rule.phase)


def note_boundaries(
    rule: UpdateRule,
    experiment: Experiment,
    rows: Mapping[str, loader.TrainInput],
    result: Params,
    fixed: Params,
) -> None:
    """Notes both objectives at the end of the phase, if its solver measures or keeps a boundary.

    result: the trainable groups that the next phase begins with or the run ends with (the moving
    average, if there is one).
    """
    if not boundary_missing(rule, experiment):
        return
    _, metrics = mean_gradients(rule, experiment, rows, result, fixed)
    values = {side: metrics[side] for side in ("retain", "forget")}
    solver, args = rule.solver, rule.solver_args
    assert solver.boundary
    assert solver.bound
    name, bound = solver.boundary(**args), solver.bound(**args)
    limit = {"boundary": name} if name else {"bound": bound}
    experiment.note(rule.phase, **limit, **values)
    log.info("%s ended at %s", rule.phase, {"forget": metrics["forget"], **limit})


def mean_gradients(
    rule: UpdateRule,
    experiment: Experiment,
    rows: Mapping[str, loader.TrainInput],
    student: Params,
    fixed: Params,
    *weights: tuple[float, float],
) -> tuple[list[Params], dict[str, float]]:
    """(gradient of r * retain + f * forget for each (r, f), metrics), both means over BATCHES.

    student: the trainable groups; fixed: what UpdateRule.fixed returns. The images are those of the
    phase's first steps; masks and noise are other draws than those of the training steps.
    """
    phase = rule.phase
    measuring = dataclasses.replace(rule, phase=f"{phase}, looked at")  # seeds the draws
    shardings = jax.tree.map(lambda x: x.sharding, student)
    out = ([shardings] * len(weights), sharding.replicated(experiment.mesh))

    def compiled(task: TaskPlan) -> Any:
        at_step = make_objectives(measuring, task, experiment.mesh)

        def measure(step: Array, student: Params, fixed: Params, images: dict[str, Array]) -> Any:
            return at_step(step, fixed, images).gradients(student, *weights)

        return jax.jit(measure, out_shardings=out)

    programs = [compiled(task) for task in experiment.plan.phases[phase].tasks]
    total = None
    with contextlib.closing(experiment.batches(phase, rows, 0)) as batches:
        for step in range(BATCHES):
            images = next(batches)
            values = programs[step % len(programs)](np.int32(step), student, fixed, images)
            total = values if total is None else jax.tree.map(jnp.add, total, values)
            jax.block_until_ready(total)  # programs over several CPU devices starve each other
    gradients, metrics = jax.tree.map(lambda x: x / BATCHES, total)
    return gradients, {name: float(value) for name, value in jax.device_get(metrics).items()}


def largest(gradient: Params, share: float) -> Params:
    """Bools like the gradient: True for the `share` of all values that are largest in magnitude.

    A value of zero is never chosen, even if fewer values are chosen then.
    """
    magnitudes = [np.abs(leaf) for leaf in jax.tree.leaves(hosts.gather(gradient))]
    values = np.concatenate([leaf.ravel() for leaf in magnitudes])
    at = max(0, len(values) - round(share * len(values)))
    threshold = np.partition(values, at)[at] if at < len(values) else np.inf
    masks = jax.tree.unflatten(
        jax.tree.structure(gradient), [(leaf >= threshold) & (leaf > 0) for leaf in magnitudes]
    )
    return sharding.place(masks, jax.tree.map(lambda x: x.sharding, gradient))
