"""Noise with given moments, in place of forget images, of their targets or of their latents."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.types import ImageToImage, Latents, Params, Rng, TokenModel

NOISES = ("gaussian_like", "standard", "uniform", "constant")


def channel_moments(
    images: Array,
) -> tuple[tuple[int, ...], Float[Array, " C"], Float[Array, " C"]]:
    """Returns (shape, mean of each channel, standard deviation of each channel) of [B, H, W, C].

    ConfigError for tokens [B, h, w]: the moments of the images cannot be computed from them.
    """
    if images.ndim != 4:
        raise ConfigError(
            "Noise with the moments of the forget images needs their pixels, but the batch holds "
            "their tokens; let data.token_cache.noise be at least 1 to draw it before training."
        )
    return images.shape, jnp.mean(images, axis=(0, 1, 2)), jnp.std(images, axis=(0, 1, 2))


def noise_images(
    rng: Rng,
    shape: tuple[int, ...],
    mean: Float[Array, " C"],
    std: Float[Array, " C"],
    *,
    noise: str = "gaussian_like",
    clip: bool = False,
) -> Float[Array, "B H W C"]:
    """Noise images of the given shape, float32 on the scale of images; no gradient.

    mean, std: of each channel, e.g. of the forget images. clip: clip to [0, 1]. noise:

    gaussian_like   N(mean, std), channel by channel
    standard        N(0, I) on pixels scaled to [-1, 1]
    uniform         U(0, 1)
    constant        the mean, not random
    """
    if noise not in NOISES:
        raise unknown_name("noise", noise, NOISES)
    if noise == "constant":
        n = jnp.broadcast_to(mean, shape)
    elif noise == "uniform":
        n = jax.random.uniform(rng, shape)
    else:
        normal = jax.random.normal(rng, shape)
        n = mean + std * normal if noise == "gaussian_like" else 0.5 + 0.5 * normal
    n = jax.lax.stop_gradient(n)
    return jnp.clip(n, 0.0, 1.0) if clip else n


def latents_like(rng: Rng, latents: Latents) -> Latents:
    """Gaussian latents; each array has the (scalar) mean and standard deviation of its original."""
    leaves, tree = jax.tree.flatten(latents)
    keys = jax.random.split(rng, len(leaves))
    drawn = [
        jnp.mean(x) + jnp.std(x) * jax.random.normal(key, x.shape)
        for key, x in zip(keys, leaves, strict=True)
    ]
    return jax.lax.stop_gradient(jax.tree.unflatten(tree, drawn))


def uniform_targets(
    model: ImageToImage, params: Params, images: Array, rng: Rng
) -> tuple[Array, Array]:
    """(images as `corrupt` takes them, targets): U(0, 1), or codes that are equally likely.

    images: [B, H, W, 3], or tokens [B, h, w]; a model of tokens gets tokens of both.
    """
    if not model.takes_tokens:
        return images, jax.random.uniform(rng, images.shape)
    assert isinstance(model, TokenModel)
    tokens = images if images.ndim == 3 else model.tokenize(params, images)
    return tokens, jax.random.randint(rng, tokens.shape, 0, model.codes, tokens.dtype)
