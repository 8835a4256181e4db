"""Constrained unlearning with a bound epsilon on one objective (Feng et al., ICLR 2025).

    minimise f2 subject to f1 <= epsilon, by steps along

    g = grad f2 + eta grad f1,   eta = max((psi - <grad f1, grad f2>) / |grad f1|^2, 0)

g is the vector nearest to grad f2 with <grad f1, g> >= psi: f1 decreases at least as fast as the
control function psi demands, and f2 as fast as this allows. `goal` chooses f1 and f2:

    goal="full_utility"      phase I:   f1 = retain, f2 = forget, control="norm"
    goal="full_forgetting"   phase I:   f1 = forget, f2 = retain, control="norm"
    goal="tradeoff"          phase II:  f1 = forget, f2 = retain, control="relative_gap"

    control="norm"           psi = scale |grad f1|^power
    control="gap"            psi = scale sign(f1 - epsilon) |f1 - epsilon|^power |grad f1|^2
    control="relative_gap"   the same with (f1 - epsilon) / (epsilon_max - epsilon_min), and eta may
                             be negative

Phase I finds the boundaries, both measured by engine/measure.py. epsilon_min is the forget
objective where a "full_forgetting" phase ends. epsilon_max is the forget objective at full utility.
Where the retain objective compares with the original model, as that of L2L does, it is zero at the
original, so full utility is where the "full_forgetting" phase starts, and no step is spent on it.
Otherwise a phase with goal="full_utility" comes first, and epsilon_max is measured where it ends.

Phase II has the bound epsilon = epsilon_min + r (epsilon_max - epsilon_min). It starts at the
boundary that is nearer to epsilon: at full forgetting if r < 0.5, else at full utility. So r = 0
forgets as far as phase I does. At r = 1 the start is the solution: no step is taken. `epsilon`, if
not 0, sets the bound itself; r must then have its default, and without phases of phase I the
"tradeoff" phase starts where the phase before it ends. At its end the forget objective is measured
again, and the run reports whether it is below epsilon.

Sources: the formulation, the boundaries and the two phases are the paper's; its algorithm was not
available. The formulas for eta and psi of the controls "norm" and "gap", scale = 1, and power = 2
("norm") and 1 ("gap"; power = 0 chooses these) are those of a third party's re-implementation,
which belongs to the family of dynamic-barrier gradient descent (Gong et al., NeurIPS 2021). They
are not verified as the paper's. That re-implementation takes control="gap" in phase II. Its psi
depends on the unit of the objective, so that the forget objective of a model with large latents
overshoots and that of a model with small latents never arrives. Therefore the default here is
"relative_gap". On the linear problem of tests/solvers/epsilon_test.py it ends nearer to the front.

Its eta has both signs, so that <grad f1, g> = psi on both sides of the bound. The objectives of a
batch scatter: if only batches above the bound acted, the phase would drift below it, because near
the original the gradient of the retain objective is too small to pull it back. On the linear
problem with a scatter of 20 %, r = 1 then ends at 78 % of the original's forget objective; with
both signs it ends within 5 %. scale = 4 is chosen for "relative_gap": with scale = 1, r = 0 on the
bundled autoencoder ends up to 5.8 % of the range above epsilon_min, with 3 up to 3.6 %, with 6 up
to 2.6 % (seeds 1 and 2).

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
from l2l_jax.lib.trees import MIN_SQUARED_NORM, dot, weighted_sum
from l2l_jax.types import Boundaries, Bounds, Metrics, Objectives, Params

GOALS = ("tradeoff", "full_forgetting", "full_utility")
CONTROLS = ("norm", "gap", "relative_gap")
DEFAULT_R = 0.5  # halfway between the boundaries
SCALES = {"norm": 1.0, "gap": 1.0, "relative_gap": 4.0}

VARIANTS = (dict(goal="full_utility"), dict(goal="full_forgetting"), dict(control="norm"))
BOUNDS = {"r": Bounds(0, 1), "unit": Bounds(0), "scale": Bounds(0), "power": Bounds(0, 100)}


def update(
    objectives: Objectives,
    student: Params,
    step: Int[Array, ""] | int,
    *,
    goal: str = "tradeoff",
    r: int | float = DEFAULT_R,
    epsilon: int | float = 0.0,
    unit: int | float = 0.0,
    control: str = "",
    scale: int | float = 0.0,
    power: int | float = 0.0,
) -> tuple[Params, Metrics]:
    """Returns (g, metrics). Metrics include "loss" (f2), "eta", "psi" and "epsilon".

    scale: of psi; 0 = that of SCALES for the control function.
    unit: what a relative gap is divided by; 0 = epsilon_max - epsilon_min, or |epsilon| if the
    boundaries are not known.
    """
    del step
    control = control or ("relative_gap" if goal == "tradeoff" else "norm")
    _check(goal, r, control)
    scale = scale or SCALES[control]
    (retain, forget), metrics = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0))
    names = ("retain", "forget") if goal == "full_utility" else ("forget", "retain")
    g1, g2 = (retain, forget) if goal == "full_utility" else (forget, retain)
    f1, f2 = (metrics[name] for name in names)
    squared_norm = jnp.maximum(dot(g1, g1), MIN_SQUARED_NORM)
    if control == "norm":
        psi = scale * squared_norm ** ((power or 2.0) / 2)
    else:
        gap = f1 - epsilon
        gap = gap / (unit or abs(epsilon) or 1.0) if control == "relative_gap" else gap
        psi = scale * jnp.sign(gap) * jnp.abs(gap) ** (power or 1.0) * squared_norm
    eta = (psi - dot(g1, g2)) / squared_norm
    eta = eta if control == "relative_gap" else jnp.maximum(eta, 0.0)
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


def boundaries(*, goal: str = "tradeoff", **others: object) -> Boundaries:
    """(boundary at the start of a phase with this goal, boundary at its end), "" for none."""
    del others
    return {
        "full_utility": ("full_utility", "full_utility"),
        "full_forgetting": ("full_utility", "full_forgetting"),
    }.get(goal, ("", ""))


def solved(
    *,
    goal: str = "tradeoff",
    r: int | float = DEFAULT_R,
    epsilon: int | float = 0.0,
    **others: object,
) -> bool:
    """Whether a phase starts at its solution: at full utility, which is what r = 1 demands."""
    del others
    return goal == "tradeoff" and r == 1 and not epsilon


def bound(*, goal: str = "tradeoff", epsilon: int | float = 0.0, **others: object) -> int | float:
    """The bound on the forget objective at the end of a phase with these arguments, inf if none."""
    del others
    return epsilon if goal == "tradeoff" else math.inf


def start(found: Mapping[str, int | float], **args: Any) -> str:
    """The boundary at which a phase starts; "" = where the phase before it ends.

    found: the forget objective at each boundary of earlier phases, nan where not yet measured.
    """
    low, high = found.get("full_forgetting"), found.get("full_utility")
    if args["goal"] != "tradeoff" or low is None or high is None:
        return ""
    epsilon = args["epsilon"]
    nearer_to_low = 2 * epsilon < low + high if epsilon else args["r"] < 0.5
    return "full_forgetting" if nearer_to_low else "full_utility"


def resolve(found: Mapping[str, int | float], **args: Any) -> dict[str, Any]:
    """Returns the arguments of `update`, with epsilon computed from r if it was 0, and `unit`.

    found: the forget objective at each boundary measured so far, {"full_forgetting": ...,
    "full_utility": ...}; nan before the run. ConfigError if a boundary is missing, if epsilon lies
    outside of the boundaries, if both epsilon and r are set, or if the boundaries are in the wrong
    order.
    """
    goal, r, epsilon = args["goal"], args["r"], args["epsilon"]
    _check(goal, r, args["control"])
    if goal != "tradeoff":
        return args
    if not math.isfinite(epsilon):
        raise ConfigError(
            f"epsilon: epsilon={epsilon} is no value for a bound; 0 computes it by r."
        )
    if epsilon and r != DEFAULT_R:
        raise ConfigError(
            f"epsilon: epsilon={epsilon:g} is the bound, so that r={r} has no effect; set only one."
        )
    missing = [name for name in ("full_forgetting", "full_utility") if name not in found]
    if missing and not epsilon:
        raise ConfigError(
            f"epsilon: goal='tradeoff' needs the boundaries {' and '.join(missing)}, which earlier "
            "phases of this solver find: one with goal='full_forgetting', and before it one with "
            "goal='full_utility' unless it starts at the original with a retain objective that "
            "compares with the original. Or set epsilon=... itself."
        )
    low = found.get("full_forgetting", -math.inf)
    high = found.get("full_utility", math.inf)
    limits = f"epsilon_min = {low:.6g} (full forgetting), epsilon_max = {high:.6g} (full utility)"
    if low >= high:
        raise ConfigError(
            f"epsilon: phase I measured {limits}, the wrong way round. Give phase I more steps or "
            "a higher learning rate."
        )
    if epsilon and (epsilon < low or epsilon > high):  # before the run they are nan: no error
        raise ConfigError(f"epsilon={epsilon:g} is outside of the possible range: {limits}.")
    unit = args["unit"] or (high - low if math.isfinite(high - low) else 0.0)
    return args | {"epsilon": epsilon or low + r * (high - low), "unit": unit}
