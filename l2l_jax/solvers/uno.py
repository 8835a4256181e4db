"""Make the forget gradient orthogonal to the retain gradient (Mandal and Gottwald, UNO, 2025).

    minimise  L_R + weight c^2        c = <g_R, g_F> / (|g_R| |g_F|),  g = grad L
    g = g_R + weight grad c^2         grad c^2 = H_R dc^2/dg_R + H_F dc^2/dg_F

c is the cosine of the two gradients over all trained parameters, H the Hessian of an objective. A
step that lowers L_R then leaves L_F as it is, to first order: training on retain images no longer
improves the forget images. The forget objective enters by its gradient alone, so its sign does not
matter. With surgery = n, every n-th step lowers L_F instead, along its gradient without the part
along g_R (the paper's UNO-S alternates its steps with gradient surgery: n = 2):

    g = g_F - <g_F, g_R> / |g_R|^2 g_R

Source: arXiv 2506.04712. The paper's page could not be read in full: the penalty as the square of
the cosine, the alternation and n = 2 follow its abstract and a public summary ("retain loss plus a
cosine-style orthogonality penalty, alternating with surgery"). weight = 1 and surgery = 2 are our
choices, and untuned. The form word `uno` of the configs gives it the objectives of `max_loss`
without a bound, whose forget gradient is that of the training loss, as in the paper.

The products with the Hessians are exact, by one backward pass through both gradients. Where a
gradient is zero the penalty is zero: it has no direction there. Methods whose retain target is the
original model begin at such a point; their first step then has no penalty.

Cost: a step without surgery takes one forward pass, two backward passes, and the derivative of
these: 5 times the FLOPs of a step of `weighted` with the smallest MAE, 10 times with the
autoencoder (lib/flops.py). A step of surgery has no derivative. Memory: two gradients, and the
intermediate values of both backward passes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from l2l_jax.lib import second_order
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.trees import MIN_SQUARED_NORM, dot, weighted_sum
from l2l_jax.types import Bounds, Metrics, Objectives, Params

BOUNDS = {"weight": Bounds(0), "surgery": Bounds(0, 10**6)}


def update(
    objectives: Objectives,
    student: Params,
    step: Int[Array, ""] | int,
    *,
    weight: int | float = 1.0,
    surgery: int = 2,
) -> tuple[Params, Metrics]:
    """Returns (g, metrics). surgery: every how many steps one of surgery comes; 0 = never.

    Metrics include "loss" (L_R + weight c^2) and "cosine" (c).
    """
    if not (weight >= 0 and surgery >= 0):
        raise ConfigError(
            f"uno: weight={weight} and surgery={surgery} must be 0 or more. weight=0 leaves "
            "gradients as they are, surgery=0 takes no step of surgery."
        )

    def both(params: Params) -> tuple[tuple[Params, ...], Metrics]:
        pair, metrics = objectives.gradients(params, (1.0, 0.0), (0.0, 1.0))
        return tuple(pair), metrics

    with second_order.differentiable():
        (retain, forget), pullback, metrics = jax.vjp(both, student, has_aux=True)
    product, squared = dot(retain, forget), (dot(retain, retain), dot(forget, forget))
    r2, f2 = (jnp.maximum(x, MIN_SQUARED_NORM) for x in squared)
    cosine = product / (jnp.sqrt(r2) * jnp.sqrt(f2))

    def orthogonal() -> Params:
        """g_R + weight grad c^2."""
        scale = 2 * weight * cosine
        unit = 1 / (jnp.sqrt(r2) * jnp.sqrt(f2))
        to_retain = weighted_sum(scale * unit, forget, -scale * cosine / r2, retain)
        to_forget = weighted_sum(scale * unit, retain, -scale * cosine / f2, forget)
        return weighted_sum(1.0, retain, 1.0, pullback((to_retain, to_forget))[0])

    def projected() -> Params:
        """g_F without its part along g_R."""
        return weighted_sum(1.0, forget, -product / r2, retain)

    if surgery:
        gradient = jax.lax.cond((step + 1) % surgery == 0, projected, orthogonal)
    else:
        gradient = orthogonal()
    loss = metrics["retain"] + weight * cosine**2
    return gradient, metrics | {"loss": loss, "cosine": cosine}
