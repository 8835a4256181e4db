"""Forget no more than epsilon says: constrained, not weighed (Feng et al., ICLR 2025).

    minimise f2 subject to f1 <= epsilon, by steps along

    g = grad f2 + eta grad f1,   eta = max((psi - <grad f1, grad f2>) / |grad f1|^2, 0)

which is the vector nearest to grad f2 with <grad f1, g> >= psi: f1 falls at least as fast as the
control function psi says, and f2 as fast as that allows.

    goal="keep"   phase I, full utility:    f1 = retain, f2 = forget, control="norm"
    goal="drop"   phase I, full forgetting: f1 = forget, f2 = retain, control="norm"
    goal="walk"   phase II:                 f1 = forget, f2 = retain, control="gap"

    control="norm"   psi = scale |grad f1|^power, whatever epsilon is
    control="gap"    psi = scale sign(f1 - epsilon) |f1 - epsilon|^power |grad f1|^2

The forget objective where "drop" ends is epsilon_min, where "keep" ends epsilon_max (both measured
by engine/measure.py), and epsilon = epsilon_min + r (epsilon_max - epsilon_min). A run has the
three as phases in the order keep, drop, walk, each from where the one before it ended. `epsilon`,
if not 0, says the bound itself; r then stays at its default. Where "walk" ends the forget objective
is measured once more, and the run says whether it is below epsilon.

Sources: the formulation, the boundaries and the two phases are the paper's; its algorithm was not
available. The formulas for eta and psi, the control of each goal (control="" chooses it), scale = 1
and power = 2 ("norm") and 1 ("gap"; power = 0 chooses these) are those of a third party's
re-implementation, of the family of dynamic-barrier gradient descent (Gong et al., NeurIPS 2021),
and not verified as the paper's.

As there, the optimizer gets g as its gradient. AdamW rescales it value by value, so that the
inequality for <grad f1, g> holds for g and only roughly for the step.

Memory: two gradients at a time in place of one (one more copy of the trained parameters), and
two backward passes after one forward pass.
"""

import math

import jax.numpy as jnp

from l2l_jax.lib.errors import ConfigError, unknown
from l2l_jax.lib.trees import combine, dot
from l2l_jax.types import Array, Metrics, Objectives, Params

GOALS = ("walk", "drop", "keep")
CONTROLS = ("norm", "gap")
R = 0.5  # halfway between the boundaries
TINY = 1e-20  # stands in for a squared norm of zero

VARIANTS = (dict(goal="keep"), dict(goal="drop"), dict(control="norm"))


def update(
    objectives: Objectives,
    student: Params,
    step: Array,
    *,
    goal: str = "walk",
    r: float = R,
    epsilon: float = 0.0,
    control: str = "",
    scale: float = 1.0,
    power: float = 0.0,
) -> tuple[Params, Metrics]:
    """g, and metrics with eta, psi and f2 as the loss."""
    del step
    control = control or ("gap" if goal == "walk" else "norm")
    _check(goal, r, control)
    (of_retain, of_forget), metrics = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0))
    names = ("retain", "forget") if goal == "keep" else ("forget", "retain")
    g1, g2 = (of_retain, of_forget) if goal == "keep" else (of_forget, of_retain)
    f1, f2 = (metrics[name] for name in names)
    norm = jnp.maximum(dot(g1, g1), TINY)
    if control == "gap":
        gap = f1 - epsilon
        psi = scale * jnp.sign(gap) * jnp.abs(gap) ** (power or 1.0) * norm
    else:
        psi = scale * norm ** ((power or 2.0) / 2)
    eta = jnp.maximum((psi - dot(g1, g2)) / norm, 0.0)
    about = {"loss": f2, "eta": eta, "psi": psi, "epsilon": jnp.float32(epsilon)}
    return combine(1.0, g2, eta, g1), metrics | about


def _check(goal: str, r: float, control: str) -> None:
    if goal not in GOALS:
        raise unknown("goal of the epsilon solver", goal, GOALS)
    if control and control not in CONTROLS:
        raise unknown("control function of the epsilon solver", control, CONTROLS)
    if not 0 <= r <= 1:
        raise ConfigError(
            f"epsilon: r={r} is no fraction; 0 is full forgetting (epsilon_min), 1 full utility "
            "(epsilon_max)."
        )


def boundary(*, goal: str = "walk", **others: object) -> str:
    """Which boundary a phase of these arguments finds: "drop", "keep", or "" for none."""
    del others
    return "" if goal == "walk" else goal


def bound(*, goal: str = "walk", epsilon: float = 0.0, **others: object) -> float:
    """What the forget objective should not exceed where a phase of these arguments ends."""
    del others
    return epsilon if goal == "walk" else math.inf


def resolve(found: dict[str, float], **args: object) -> dict[str, object]:
    """The arguments with epsilon put in; found: the forget objective at the boundaries so far.

    ConfigError if a boundary is missing, epsilon lies outside, both are said that say it, or the
    boundaries are the wrong way round.
    """
    goal, r, epsilon = args["goal"], args["r"], args["epsilon"]
    _check(goal, r, args["control"])
    if goal != "walk":
        return args
    if not math.isfinite(epsilon):
        raise ConfigError(f"epsilon: epsilon={epsilon} is no value that could be held; 0: by r.")
    if epsilon and r != R:
        raise ConfigError(
            f"epsilon: epsilon={epsilon:g} is the bound, so that r={r} has no effect; say one."
        )
    missing = [name for name in ("drop", "keep") if name not in found]
    if missing and not epsilon:
        raise ConfigError(
            f"epsilon: goal='walk' needs phases of this solver before it with goal "
            f"{' and '.join(map(repr, missing))}, which find the boundaries; or say epsilon=... "
            "itself."
        )
    low, high = found.get("drop", -math.inf), found.get("keep", math.inf)
    said = f"epsilon_min = {low:.6g} (full forgetting) and epsilon_max = {high:.6g} (full utility)"
    if low > high:
        raise ConfigError(
            f"epsilon: phase I found {said}, the wrong way round. Give it more steps or a higher "
            "learning rate."
        )
    if epsilon and (epsilon < low or epsilon > high):  # before the run they are nan: unknown
        raise ConfigError(f"epsilon={epsilon:g} is outside of what can be asked for: {said}.")
    return args | {"epsilon": epsilon or low + r * (high - low)}
