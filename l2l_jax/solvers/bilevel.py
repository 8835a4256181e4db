"""Retain as the upper problem, forgetting as the lower one (BOME; EraseDiff, Wu et al., 2024).

    minimise L_R(theta)  subject to  theta in argmin L_F

    theta_K = K steps of gradient descent on L_F from theta, of length inner_rate
    q       = L_F(theta) - L_F(theta_K)            how far the lower problem is from solved
    g       = grad L_R + lam grad q,   lam = max((phi - <grad q, grad L_R>) / |grad q|^2, 0)
    phi     = eta |grad q|^2   (barrier="norm")    or   eta q   (barrier="gap")

theta_K is held constant in grad q, so that grad q = grad L_F(theta). lam is the smallest weight
with which the step lowers q at least at the rate phi.

Sources: EraseDiff (arXiv 2401.05779) and its released code for the two problems, phi and
eta = 0.1; BOME (Ye et al., NeurIPS 2022) for the algorithm and for the barrier eta q. With
barrier="norm", which the released code has, the K inner steps change no step at all, since grad q
does not depend on them; they are then left out here. With "gap" they count: forgetting stops to be
pushed once K steps no longer gain anything. K = 2 is that of the released code for class-wise
forgetting; inner_rate = 1e-3 is our choice, and untuned. The released code also has a variant with
a constant lam, which is the solver `weighted`.

g is what the optimizer receives; AdamW rescales it value by value. The solver `epsilon` with
goal="full_forgetting" has the same formula with the barrier "norm", and measures boundaries.

Cost: one forward and two backward passes; with "gap" also K forward and backward passes, and one
forward pass. Memory: two gradients, and with "gap" a copy of the parameters.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.lib.trees import MIN_SQUARED_NORM, dot, weighted_sum
from l2l_jax.types import Bounds, Metrics, Objectives, Params

BARRIERS = ("norm", "gap")

BOUNDS = {
    "eta": Bounds(0),
    "barrier": Bounds(choices=BARRIERS),
    "inner_steps": Bounds(1, 1000),
    "inner_rate": Bounds(0, open_low=True),
}


def update(
    objectives: Objectives,
    student: Params,
    step: Int[Array, ""] | int,
    *,
    eta: int | float = 0.1,
    barrier: str = "norm",
    inner_steps: int = 2,
    inner_rate: int | float = 1e-3,
) -> tuple[Params, Metrics]:
    """Returns (g, metrics). Metrics include "loss" (L_R), "lam", and "gap" (q) if phi has it."""
    del step
    if barrier not in BARRIERS:
        raise unknown_name("barrier of bilevel", barrier, BARRIERS)
    if not (eta >= 0 and inner_rate > 0):
        raise ConfigError(
            f"bilevel: eta={eta} is 0 or more, and inner_rate={inner_rate} above 0: they say how "
            "fast the forget objective falls."
        )
    (retain, forget), metrics = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0))
    squared = jnp.maximum(dot(forget, forget), MIN_SQUARED_NORM)
    added = {"loss": metrics["retain"]}
    phi = eta * squared
    if barrier == "gap":
        inner = weighted_sum(1.0, student, -inner_rate, forget)
        for _ in range(inner_steps - 1):
            (gradient,), _ = objectives.gradients(inner, (0.0, 1.0))
            inner = weighted_sum(1.0, inner, -inner_rate, gradient)
        _, solved = objectives.gradients(inner)
        added["gap"] = jax.lax.stop_gradient(metrics["forget"] - solved["forget"])
        phi = eta * added["gap"]
    added["lam"] = jnp.maximum((phi - dot(forget, retain)) / squared, 0.0)
    return weighted_sum(1.0, retain, added["lam"], forget), metrics | added
