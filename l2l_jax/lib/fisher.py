"""The diagonal of the empirical Fisher matrix: which parameters the loss of images depends on."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from l2l_jax.types import Params, PerImage, Rng


def diagonal(
    loss: Callable[[Params], PerImage], params: Params, rng: Rng, draws: int = 1
) -> Params:
    """A tree like params: an unbiased estimate of mean_i (d loss_i / d theta)^2, value by value.

    loss returns the losses [B] of B images. With random signs s, the square of the gradient of
    sum_i s_i loss_i has the mean sum_i (d loss_i)^2: products of different images cancel. It takes
    one forward pass, and a backward pass for each of `draws`, whose mean it returns.
    """
    values, pullback = jax.vjp(loss, params)

    def add(total: Params, key: Rng) -> tuple[Params, None]:
        signs = jax.random.rademacher(key, values.shape, values.dtype)
        return jax.tree.map(lambda x, g: x + g**2, total, pullback(signs)[0]), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, _ = jax.lax.scan(add, zeros, jax.random.split(rng, draws))
    return jax.tree.map(lambda x: x / (draws * len(values)), total)
