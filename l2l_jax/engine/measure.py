"""What a phase must measure before it starts, and what is measured where it ends.

A method may end when a metric reaches the value that it has for a retrained model (lambda of paper
B). A solver may need the forget objective at the end of earlier phases (epsilon of paper C). With
`saliency` < 1 only the parameters with the largest forget gradient move (Fan et al., SalUn, ICLR
2024: half of them, by the absolute value of the gradient summed over the forget set, one threshold
for all; there over the whole set, here over BATCHES of the phase's batches). The gradient is that
of the forget objective L_F of the phase's method, such as the distance of latents for L2L; SalUn
takes the gradient of the training loss of the forget images. Values are noted in the workdir, so
that a continued run uses the same ones.
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.data import loader
from l2l_jax.engine import boundaries, certificate, unseen
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.plan import PhasePlan, TaskPlan
from l2l_jax.engine.step import UpdateRule, make_objectives
from l2l_jax.lib import hosts, sharding
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Array, Params

log = logging.getLogger(__name__)

BATCHES = 32  # in a mean, at least; every task has equally many of them


def resolve_arguments(
    rule: UpdateRule,
    experiment: Experiment,
    rows: Mapping[str, loader.TrainInput],
    start: Params,
    teacher: Params,
    noise: Array | None,
) -> tuple[UpdateRule, Params]:
    """Returns (the rule with all measured arguments, what UpdateRule.fixed returns of the phase).

    start: all groups that the phase begins with. ConfigError if the solver's `resolve` raises it.
    """
    planned = experiment.plan.phases[rule.phase]
    student = {group: start[group] for group in rule.method.TRAINABLE}
    fixed = rule.fixed(start, teacher, noise)
    if missing_boundaries(experiment, planned) & {boundaries.of_phase(experiment, planned)[0]}:
        _note_start(rule, experiment, rows, student, fixed)
    rule = _with_boundaries(rule, experiment)
    rule = _with_stopping_value(rule, experiment, rows, teacher, noise)
    pairs, salient = unseen.fixed(rule, experiment, start), None
    if planned.saliency < 1:
        (gradient,), _ = mean_gradients(rule, experiment, rows, student, fixed, (0.0, 1.0))
        salient = largest(gradient, planned.saliency)
    certified = certificate.fixed(rule, experiment)
    return rule, rule.fixed(start, teacher, noise, salient, pairs, certified)


def _with_boundaries(rule: UpdateRule, experiment: Experiment) -> UpdateRule:
    """The rule with the solver arguments that depend on where earlier phases ended."""
    if not rule.solver.resolve:
        return rule
    found = boundaries.found(experiment, rule.phase)
    args = rule.solver.resolve(found, **rule.solver_args)
    return dataclasses.replace(rule, solver_args=args)


def _note_start(
    rule: UpdateRule,
    experiment: Experiment,
    rows: Mapping[str, loader.TrainInput],
    student: Params,
    fixed: Params,
) -> None:
    """Notes the forget objective at the start of the phase, which is a boundary."""
    _, metrics = mean_gradients(rule, experiment, rows, student, fixed)
    name, _ = boundaries.of_phase(experiment, experiment.plan.phases[rule.phase])
    _note_boundary(experiment, rule.phase, name, metrics["forget"])
    log.info("%s starts at the boundary %s: %.6g", rule.phase, name, metrics["forget"])


def _note_boundary(experiment: Experiment, phase: str, name: str, value: float) -> None:
    known = experiment.noted(phase).get(boundaries.NOTE, {})
    experiment.note(phase, **{boundaries.NOTE: known | {name: value}})


def _with_stopping_value(
    rule: UpdateRule,
    experiment: Experiment,
    rows: Mapping[str, loader.TrainInput],
    original: Params,
    noise: Array | None,
) -> UpdateRule:
    """The rule with the argument of UNTIL measured on the retrained models, if it is 0."""
    if rule.stop or not rule.method.UNTIL or not experiment.references:
        return rule
    phase, (_, argument) = rule.phase, rule.method.UNTIL
    if rule.args[argument]:
        return rule
    if argument not in experiment.noted(phase):
        models = [experiment.place(weights.params) for weights in experiment.references]
        distance = functools.partial(_distance, rule, experiment, rows, noise=noise)
        experiment.note(phase, **stopping_value(argument, distance, models, original))
    noted = experiment.noted(phase)
    log.info("%s ends when %s", phase, stopping_text(rule.method.UNTIL, noted))
    return dataclasses.replace(rule, args={**rule.args, argument: noted[argument]})


def stopping_value(
    argument: str,
    distance: Callable[[Params, Params], float],
    models: Sequence[Params],
    original: Params,
) -> dict[str, float]:
    """{argument, "distance", "floor", "references"}: how far the retrained models are away.

    distance(model, teacher) is the mean of the metric of UNTIL. "distance" is the mean of that of
    every retrained model to the original. "floor" is that of the retrained models to each other,
    which other seeds cause and no image; it needs two of them, and is 0 for one. The argument is
    distance - floor. ConfigError if it is not above 0.
    """
    away = float(np.mean([distance(model, original) for model in models]))
    pairs = itertools.permutations(models, 2)
    between = [distance(one, other) for one, other in pairs]
    floor = float(np.mean(between)) if between else 0.0
    if not away > floor:
        raise ConfigError(
            f"The {len(models)} retrained models are as far from each other ({floor:.4g}) as from "
            f"the original ({away:.4g}): their distance says nothing about the forget images. "
            f"Train them longer, or set the argument {argument!r} itself."
        )
    noted = {"distance": away, "floor": floor, "references": len(models)}
    return {argument: away - floor, **noted}


def _distance(
    rule: UpdateRule,
    experiment: Experiment,
    rows: Mapping[str, loader.TrainInput],
    model: Params,
    teacher: Params,
    *,
    noise: Array | None,
) -> float:
    """The mean of the metric of UNTIL, over whole rotations of the tasks, of a model."""
    assert rule.method.UNTIL
    student = {group: model[group] for group in rule.method.TRAINABLE}
    fixed = rule.fixed(model, teacher, noise)
    _, metrics = mean_gradients(rule, experiment, rows, student, fixed)
    return metrics[rule.method.UNTIL[0]]


def stopping_text(until: tuple[str, str], noted: Mapping[str, float]) -> str:
    """When a phase with a measured stopping value ends, in words; noted: the notes of the phase."""
    metric, argument = until
    count, floor = noted["references"], ""
    if count > 1:
        floor = f" minus their distance to each other, {noted['floor']:.4g}"
    models = "the retrained model" if count == 1 else f"the {count} retrained models"
    return (
        f"{metric}, its mean over the tasks, reaches {argument} = {noted[argument]:.4g}: that of "
        f"{models}, {noted['distance']:.4g}{floor}"
    )


def is_complete(experiment: Experiment, planned: PhasePlan) -> bool:
    """Whether everything is noted that is measured where the phase starts and ends."""
    noted = experiment.noted(planned.name)
    if missing_boundaries(experiment, planned) or (planned.solver.bound and "forget" not in noted):
        return False
    return not planned.stop or "end" in noted.get(unseen.NOTE, {})


def missing_boundaries(experiment: Experiment, planned: PhasePlan) -> set[str]:
    """The boundaries of the phase whose value is not noted yet."""
    noted = experiment.noted(planned.name).get(boundaries.NOTE, {})
    return {b for b in boundaries.of_phase(experiment, planned) if b} - noted.keys()


def note_end(
    rule: UpdateRule,
    experiment: Experiment,
    rows: Mapping[str, loader.TrainInput],
    result: Params,
    fixed: Params,
) -> None:
    """Notes both objectives at the end of the phase, if its solver has boundaries or a bound.

    With the stop "unseen" it notes the losses that are compared.

    result: the trainable groups that the next phase begins with or the run ends with (the moving
    average, if there is one).
    """
    planned = experiment.plan.phases[rule.phase]
    unseen.note_end(rule, experiment, fixed["frozen"] | result)
    if is_complete(experiment, planned):
        return
    _, metrics = mean_gradients(rule, experiment, rows, result, fixed)
    _, name = boundaries.of_phase(experiment, planned)
    values = {side: metrics[side] for side in ("retain", "forget")}
    if name:
        _note_boundary(experiment, rule.phase, name, metrics["forget"])
    elif rule.solver.bound:
        values["bound"] = rule.solver.bound(**rule.solver_args)
    experiment.note(rule.phase, **values)
    log.info("%s ended at %s%s", rule.phase, values, f", the boundary {name}" if name else "")


def mean_gradients(
    rule: UpdateRule,
    experiment: Experiment,
    rows: Mapping[str, loader.TrainInput],
    student: Params,
    fixed: Params,
    *weights: tuple[float, float],
) -> tuple[list[Params], dict[str, float]]:
    """(gradient of r * retain + f * forget for each (r, f), metrics), both means over batches.

    student: the trainable groups; fixed: what UpdateRule.fixed returns. The images are those of the
    phase's first steps; masks and noise are other draws than those of the training steps.
    """
    phase = rule.phase
    measuring = dataclasses.replace(rule, phase=f"{phase}, measured")  # seeds the draws
    shardings = jax.tree.map(lambda x: x.sharding, student)
    out = ([shardings] * len(weights), sharding.replicated(experiment.mesh))

    def compiled(task: TaskPlan) -> Any:
        at_step = make_objectives(measuring, task, experiment.mesh)

        def measure(step: Array, student: Params, fixed: Params, images: dict[str, Array]) -> Any:
            return at_step(step, fixed, images).gradients(student, *weights)

        return jax.jit(sharding.on(experiment.mesh, measure), out_shardings=out)

    programs = [compiled(task) for task in experiment.plan.phases[phase].tasks]
    count = -(-BATCHES // len(programs)) * len(programs)
    total = None
    with contextlib.closing(experiment.batches(phase, rows, 0)) as batches:
        for step in range(count):
            images = next(batches)
            values = programs[step % len(programs)](np.int32(step), student, fixed, images)
            total = values if total is None else jax.tree.map(jnp.add, total, values)
            jax.block_until_ready(total)  # programs over several CPU devices starve each other
    gradients, metrics = jax.tree.map(lambda x: x / count, total)
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
