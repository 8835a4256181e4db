"""Boundaries: values of the forget objective at the start or end of phases, for later phases.

A solver declares them (types.Solver.boundaries). engine/measure.py measures them and notes them in
the workdir, so that a continued run uses the same ones.
"""

import math
from collections.abc import Mapping

from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.plan import PhasePlan
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Boundaries, Params

NOTE = "boundaries"  # key of a phase's notes: {boundary: forget objective}


def of_phase(experiment: Experiment, planned: PhasePlan) -> Boundaries:
    """(name at the start of the phase, name at its end), "" for none.

    The start is a boundary only where the retain objective is known to be 0: the phase starts at
    the original model, and the method's retain objective compares with the original.
    """
    if not planned.solver.boundaries:
        return "", ""
    start, end = planned.solver.boundaries(**planned.solver_args)
    target = planned.method.retain_target(experiment.model, **planned.args)
    earlier = experiment.plan.earlier(planned.name)
    at_original = target == "original" and all(each.method.MAKES_ORIGINAL for each in earlier)
    return start if at_original and not planned.teacher else "", end


def check(experiment: Experiment, planned: PhasePlan) -> None:
    """ConfigError for a phase that would only look for a boundary at which it starts already."""
    start, end = of_phase(experiment, planned)
    if start and start == end:
        raise ConfigError(
            f"The phase {planned.name!r} has nothing to do: it looks for the boundary {end!r}, and "
            "it starts there, at the original, where the retain objective is 0. Leave it out of "
            "config.phases; the next phase of this solver measures the boundary where it starts."
        )


def found(experiment: Experiment, phase: str) -> dict[str, float]:
    """{boundary: forget objective} of the phases before one; nan for values not measured yet."""
    values: dict[str, float] = {}
    for each in experiment.plan.earlier(phase):
        noted = experiment.noted(each.name).get(NOTE, {})
        values |= {b: noted.get(b, math.nan) for b in of_phase(experiment, each) if b}
    return values


def start_of(
    experiment: Experiment, planned: PhasePlan, reached: Mapping[str, Params], params: Params
) -> Params:
    """The parameters at which a phase starts.

    reached: {boundary: parameters} of the phases before it; params: where the last one ended.
    """
    if not planned.solver.start:
        return params
    boundaries = found(experiment, planned.name)
    return reached.get(planned.solver.start(boundaries, **planned.solver_args), params)
