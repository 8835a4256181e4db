"""Constrained unlearning with a bound epsilon on one objective (Feng et al., ICLR 2025).

    minimise f2 subject to f1 <= epsilon, by steps along

    g = grad f2 + eta grad f1,   eta = max((psi - <grad f1, grad f2>) / |grad f1|^2, 0)

g is the vector nearest to grad f2 with <grad f1, g> >= psi: f1 decreases at least as fast as the
control function psi demands, and f2 as fast as this allows. `goal` chooses f1 and f2:

    goal="keep"   phase I, full utility:    f1 = retain, f2 = forget, control="norm"
    goal="drop"   phase I, full forgetting: f1 = forget, f2 = retain, control="norm"
    goal="walk"   phase II:                 f1 = forget, f2 = retain, control="gap"

"keep" trains for the best retain objective, "drop" for the best forget objective, and "walk" starts
at a result of phase I and moves along the trade-off between them, to forget <= epsilon.

    control="norm"   psi = scale |grad f1|^power, independent of epsilon
    control="gap"    psi = scale sign(f1 - epsilon) |f1 - epsilon|^power |grad f1|^2

epsilon_min is the forget objective at the end of a "drop" phase, epsilon_max that at the end of a
"keep" phase, both measured by engine/measure.py; epsilon = epsilon_min + r (epsilon_max -
epsilon_min). A run has three phases, in the order keep, drop, walk; each starts from the result of
the one before it. `epsilon`, if not 0, sets the bound itself; r must then have its default. At the
end of "walk" the forget objective is measured again, and the run reports whether it is below
epsilon.

Sources: the formulation, the boundaries and the two phases are the paper's; its algorithm was not
available. The formulas for eta and psi, the control function of each goal (control="" chooses it),
scale = 1, and power = 2 ("norm") and 1 ("gap"; power = 0 chooses these) are those of a third
party's re-implementation, which belongs to the family of dynamic-barrier gradient descent (Gong et
al., NeurIPS 2021). They are not verified as the paper's.

As there, g is the gradient that the optimizer receives. AdamW rescales it value by value, so the
inequality for <grad f1, g> holds for g exactly and for the update only approximately.

Memory: two gradients at a time instead of one (one more copy of the trained parameters), and two
backward passes after one forward pass.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int

from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.lib.trees import dot, weighted_sum
from l2l_jax.types import Metrics, Objectives, Params

GOALS = ("walk", "drop", "keep")
CONTROLS = ("norm", "gap")
DEFAULT_R = 0.5  # halfway between the boundaries
MIN_SQUARED_NORM = 1e-20  # replaces smaller values in denominators

VARIANTS = (dict(goal="keep"), dict(goal="drop"), dict(control="norm"))


def update(
    objectives: Objectives,
    student: Params,
    step: Int[Array, ""] | int,
    *,
    goal: str = "walk",
    r: int | float = DEFAULT_R,
    epsilon: int | float = 0.0,
    control: str = "",
    scale: int | float = 1.0,
    power: int | float = 0.0,
) -> tuple[Params, Metrics]:
    """Returns (g, metrics). Metrics include "loss" (f2), "eta", "psi" and "epsilon"."""
    del step
    control = control or ("gap" if goal == "walk" else "norm")
    _check(goal, r, control)
    (retain, forget), metrics = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0))
    names = ("retain", "forget") if goal == "keep" else ("forget", "retain")
    g1, g2 = (retain, forget) if goal == "keep" else (forget, retain)
    f1, f2 = (metrics[name] for name in names)
    squared_norm = jnp.maximum(dot(g1, g1), MIN_SQUARED_NORM)
    if control == "gap":
        gap = f1 - epsilon
        psi = scale * jnp.sign(gap) * jnp.abs(gap) ** (power or 1.0) * squared_norm
    else:
        psi = scale * squared_norm ** ((power or 2.0) / 2)
    eta = jnp.maximum((psi - dot(g1, g2)) / squared_norm, 0.0)
    added = {"loss": f2, "eta": eta, "psi": psi, "epsilon": jnp.float32(epsilon)}
    return weighted_sum(1.0, g2, eta, g1), metrics | added


def _check(goal: str, r: int | float, control: str) -> None:
    if goal not in GOALS:
        raise unknown_name("goal of the epsilon solver", goal, GOALS)
    if control and control not in CONTROLS:
        raise unknown_name("control function of the epsilon solver", control, CONTROLS)
    if not 0 <= r <= 1:
        raise ConfigError(
            f"epsilon: r={r} is no fraction; 0 is full forgetting (epsilon_min), 1 is full utility "
            "(epsilon_max)."
        )


def boundary(*, goal: str = "walk", **others: object) -> str:
    """The boundary that a phase with these arguments measures: "drop", "keep", or "" for none."""
    del others
    return "" if goal == "walk" else goal


def bound(*, goal: str = "walk", epsilon: int | float = 0.0, **others: object) -> int | float:
    """The bound on the forget objective at the end of a phase with these arguments, inf if none."""
    del others
    return epsilon if goal == "walk" else math.inf


def resolve(found: Mapping[str, int | float], **args: Any) -> dict[str, Any]:
    """Returns the arguments of `update`, with epsilon computed from r if it was 0.

    found: the forget objective at each boundary measured so far, {"drop": ..., "keep": ...}; nan
    before the run. ConfigError if a boundary is missing, if epsilon lies outside of the boundaries,
    if both epsilon and r are set, or if the boundaries are in the wrong order.
    """
    goal, r, epsilon = args["goal"], args["r"], args["epsilon"]
    _check(goal, r, args["control"])
    if goal != "walk":
        return args
    if not math.isfinite(epsilon):
        raise ConfigError(
            f"epsilon: epsilon={epsilon} is no value for a bound; 0 computes it by r."
        )
    if epsilon and r != DEFAULT_R:
        raise ConfigError(
            f"epsilon: epsilon={epsilon:g} is the bound, so that r={r} has no effect; set only one."
        )
    missing = [name for name in ("drop", "keep") if name not in found]
    if missing and not epsilon:
        raise ConfigError(
            f"epsilon: goal='walk' needs phases of this solver before it with goal "
            f"{' and '.join(map(repr, missing))}, which find the boundaries; or set epsilon=... "
            "itself."
        )
    low, high = found.get("drop", -math.inf), found.get("keep", math.inf)
    limits = f"epsilon_min = {low:.6g} (full forgetting), epsilon_max = {high:.6g} (full utility)"
    if low > high:
        raise ConfigError(
            f"epsilon: phase I measured {limits}, the wrong way round. Give phase I more steps or "
            "a higher learning rate."
        )
    if epsilon and (epsilon < low or epsilon > high):  # before the run they are nan: no error
        raise ConfigError(f"epsilon={epsilon:g} is outside of the possible range: {limits}.")
    return args | {"epsilon": epsilon or low + r * (high - low)}
