"""Rescale the forget gradient relative to the retain gradient (Alberti et al., ICLR 2025).

    g = grad retain + s grad forget,    s = share |grad retain| / |grad forget|
                                or, with norm > 0,    s = norm / |grad forget|

s is computed anew in every step. |.| is the norm over all trained parameters; g = grad retain if
grad forget is zero. The forget gradient then has the same influence in every step: it does not grow
with an objective that has no lower bound, such as minus a loss, and it does not vanish when its own
norm becomes small. If grad retain is zero, s = share: methods whose retain target is the original
model start there, and a share of zero would keep the parameters there.

Sources: `norm` is what the authors' code does ("scaling_norm": 500 for CelebA-HQ, 750 for Stable
Diffusion, 5 for MNIST; always rescaled, though called clipping). share = 0.1 is the goal to which
their README says those numbers should be tuned: 10 % of the norm of the retain term's gradient.
Their numbers belong to losses summed over pixels and do not fit the objectives here, which are
means; hence `share` is the default.

s multiplies the gradient, not the update that the optimizer computes from it.

Memory: two gradients at a time instead of one (one more copy of the trained parameters), and two
backward passes after one forward pass.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.trees import dot, weighted_sum
from l2l_jax.types import Bounds, Metrics, Objectives, Params

VARIANTS = (dict(norm=1.0),)
BOUNDS = {"share": Bounds(0), "norm": Bounds(0)}


def update(
    objectives: Objectives,
    student: Params,
    step: Int[Array, ""] | int,
    *,
    share: int | float = 0.1,
    norm: int | float = 0.0,
) -> tuple[Params, Metrics]:
    """Returns (g, metrics).

    Metrics include "loss" (retain + s forget), "scale" (s), and the norms of both gradients before
    scaling, "retain_norm" and "forget_norm".
    """
    del step
    if not (share >= 0 and norm >= 0):
        raise ConfigError(
            f"normalized: share={share} and norm={norm} are lengths of the forget gradient and "
            "must be 0 or more. norm=0 means that share is used; share=0 then means no forgetting."
        )
    (retain, forget), metrics = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0))
    retain_norm, forget_norm = jnp.sqrt(dot(retain, retain)), jnp.sqrt(dot(forget, forget))
    reference = jnp.where(retain_norm > 0, retain_norm, forget_norm)
    length = jnp.float32(norm) if norm else share * reference
    nonzero = forget_norm > 0
    scale = jnp.where(nonzero, length / jnp.where(nonzero, forget_norm, 1.0), 0.0)
    added = {
        "loss": metrics["retain"] + scale * metrics["forget"],
        "scale": scale,
        "retain_norm": retain_norm,
        "forget_norm": forget_norm,
    }
    return weighted_sum(1.0, retain, scale, forget), metrics | added
