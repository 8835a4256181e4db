"""Distances between what two models make of the same inputs."""

import jax
import jax.numpy as jnp

from l2l_jax.types import Array, Hidden, Outputs


def latent_distance(a: Hidden, b: Hidden, relative: bool = False) -> Array:
    """Mean squared difference, float32; summed over the arrays of a pytree (feature maps).

    relative: of each array in units of the mean square of b's, the goal's.
    """

    def mean(x: Array, y: Array) -> Array:
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)
        unit = jax.lax.stop_gradient(jnp.mean(y**2)) + 1e-12 if relative else 1.0
        return jnp.mean((x - y) ** 2) / unit

    return sum(jax.tree.leaves(jax.tree.map(mean, a, b)))


def displacement(a: Outputs, b: Outputs) -> Array:
    """|a - b|_2 / sqrt(n) of each example, averaged: scalar; n values in each array of a pytree."""

    def each(x: Array, y: Array) -> Array:
        squares = (x.astype(jnp.float32) - y.astype(jnp.float32)) ** 2
        return jnp.mean(jnp.sqrt(jnp.mean(squares.reshape(len(x), -1), axis=1)))

    return sum(jax.tree.leaves(jax.tree.map(each, a, b)))
