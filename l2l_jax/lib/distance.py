"""The distance between what two encoders make of an input."""

import jax
import jax.numpy as jnp

from l2l_jax.types import Array, Hidden


def latent_distance(a: Hidden, b: Hidden) -> Array:
    """Mean squared difference, float32; summed over the arrays of a pytree (feature maps)."""

    def mean(x: Array, y: Array) -> Array:
        return jnp.mean((x.astype(jnp.float32) - y.astype(jnp.float32)) ** 2)

    return sum(jax.tree.leaves(jax.tree.map(mean, a, b)))
