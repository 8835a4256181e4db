"""The forget gradient at a fixed length beside the retain gradient (Alberti et al., ICLR 2025).

    g = grad retain + s grad forget,    s = share |grad retain| / |grad forget|
                                or, with norm > 0,    s = norm / |grad forget|

in every step anew; |.| is the norm over all trained parameters, and g = grad retain where grad
forget is zero. An objective without a lower bound, such as minus a loss, then pushes no harder the
further it has gone, and no less hard when its gradient has all but vanished. Where grad retain is
zero, s = share: methods whose retain goal is the original itself begin there, and a share of
nothing would leave them there for good.

Sources: `norm` is what the authors' code does ("scaling_norm": 500 CelebA-HQ, 750 Stable Diffusion,
5 MNIST, always rescaled, though called clipping); share = 0.1 is what their README says those
numbers are to be tuned to, 10 % of the norm of the retain term's gradient. Their numbers are of
losses summed over pixels and mean nothing for the means that objectives are here; hence a share is
the default.

s multiplies gradients, not what the optimizer makes of them.

Memory: two gradients at a time in place of one (one more copy of the trained parameters), and
two backward passes after one forward pass.
"""

import jax.numpy as jnp

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.trees import combine, dot
from l2l_jax.types import Array, Metrics, Objectives, Params

VARIANTS = (dict(norm=1.0),)


def update(
    objectives: Objectives,
    student: Params,
    step: Array,
    *,
    share: float = 0.1,
    norm: float = 0.0,
) -> tuple[Params, Metrics]:
    """g, and metrics with retain + s forget as the loss, s as scale, and both norms before it."""
    del step
    if not (share >= 0 and norm >= 0):
        raise ConfigError(
            f"normalized: share={share} and norm={norm} are lengths of the forget "
            "gradient, 0 or more; norm=0 leaves it to share, share=0 as well is no forgetting."
        )
    (retain, forget), metrics = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0))
    of_retain, of_forget = jnp.sqrt(dot(retain, retain)), jnp.sqrt(dot(forget, forget))
    beside = jnp.where(of_retain > 0, of_retain, of_forget)
    goal = jnp.float32(norm) if norm else share * beside
    some = of_forget > 0
    scale = jnp.where(some, goal / jnp.where(some, of_forget, 1.0), 0.0)
    about = {
        "loss": metrics["retain"] + scale * metrics["forget"],
        "scale": scale,
        "retain_norm": of_retain,
        "forget_norm": of_forget,
    }
    return combine(1.0, retain, scale, forget), metrics | about
