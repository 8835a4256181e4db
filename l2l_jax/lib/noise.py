"""What forget images, their targets, or their latents are replaced by: noise of known moments."""

import jax
import jax.numpy as jnp

from l2l_jax.lib.errors import ConfigError, unknown
from l2l_jax.types import Array, Latents

NOISES = ("gaussian_like", "standard", "uniform", "constant")


def about(images: Array) -> tuple[tuple[int, ...], Array, Array]:
    """Shape, and mean and standard deviation of each channel: [3] float32 twice.

    ConfigError for tokens, of which there are no moments.
    """
    if images.ndim != 4:
        raise ConfigError(
            "Noise like the forget images needs their pixels, and only their tokens are given; let "
            "data.token_cache.noise be at least 1, so that it is drawn beforehand."
        )
    return images.shape, jnp.mean(images, axis=(0, 1, 2)), jnp.std(images, axis=(0, 1, 2))


def noise_images(
    rng: Array,
    shape: tuple[int, ...],
    mean: Array,
    std: Array,
    *,
    noise: str = "gaussian_like",
    clip: bool = False,
) -> Array:
    """n, one per forget image: [B, H, W, 3] float32 around [0, 1], given their moments.

    gaussian_like   N(mean, std), channel by channel
    standard        N(0, I) on pixels scaled to [-1, 1]
    uniform         U(0, 1)
    constant        the mean, no randomness
    """
    if noise not in NOISES:
        raise unknown("noise", noise, NOISES)
    if noise == "constant":
        n = jnp.broadcast_to(mean, shape)
    elif noise == "uniform":
        n = jax.random.uniform(rng, shape)
    else:
        mean, std = (mean, std) if noise == "gaussian_like" else (0.5, 0.5)
        n = mean + std * jax.random.normal(rng, shape)
    n = jax.lax.stop_gradient(n)
    return jnp.clip(n, 0.0, 1.0) if clip else n


def latents_like(rng: Array, hidden: Latents) -> Latents:
    """Gaussian latents with one mean and one standard deviation for each array of `hidden`."""
    leaves, tree = jax.tree.flatten(hidden)
    keys = jax.random.split(rng, len(leaves))
    drawn = [
        jnp.mean(x) + jnp.std(x) * jax.random.normal(key, x.shape)
        for key, x in zip(keys, leaves, strict=True)
    ]
    return jax.lax.stop_gradient(jax.tree.unflatten(tree, drawn))
