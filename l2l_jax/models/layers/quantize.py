"""Vector quantisation: the nearest code of a codebook, and the losses that train a codebook.

van den Oord et al., "Neural Discrete Representation Learning", 2017. Distances are squared and
Euclidean, always computed in float32: one changed token gives another image.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from l2l_jax.types import Array, Metrics, PerImage, Scalar

Codebook = Float[Array | np.ndarray, "N C"]
COMMITMENT = 0.25  # weight of the pull of the encoder towards its codes


def distances(z: Float[Array, "*dims C"], codebook: Codebook) -> Float[Array, "*dims N"]:
    """[..., N] float32: |z - e|^2 for every code e."""
    z, codebook = z.astype(jnp.float32), codebook.astype(jnp.float32)
    cross = jnp.einsum("...c,nc->...n", z, codebook, precision="highest")
    return jnp.sum(z**2, -1, keepdims=True) + jnp.sum(codebook**2, -1) - 2 * cross


def nearest(z: Float[Array, "*dims C"], codebook: Codebook) -> Int[Array, "*dims"]:
    """[...] int32: the index of the nearest code; of equal distances the first."""
    return jnp.argmin(distances(z, codebook), axis=-1).astype(jnp.int32)


def straight_through(
    z: Float[Array, "*dims C"], quantized: Float[Array, "*dims C"]
) -> Float[Array, "*dims C"]:
    """The value of `quantized` with the gradient of z."""
    return z + jax.lax.stop_gradient(quantized - z)


def commitment(z: Float[Array, "B h w C"], quantized: Float[Array, "B h w C"]) -> PerImage:
    """[B] |sg(z) - e|^2 + 0.25 |z - sg(e)|^2: pulls codes to latents, and the encoder to codes.

    The class of the released network swaps the two weights, which changes no value.
    """
    fixed = jax.lax.stop_gradient
    to_codes = jnp.mean((fixed(z) - quantized) ** 2, axis=(1, 2, 3))
    return to_codes + COMMITMENT * jnp.mean((z - fixed(quantized)) ** 2, axis=(1, 2, 3))


def revival(z: Float[Array, "*dims C"], codebook: Codebook) -> Scalar:
    """Pulls each code that no latent of the batch chose to the latent nearest to it.

    An unused code gets no gradient from `commitment` and would stay unused. Unlike Zheng & Vedaldi,
    "Online Clustered Codebook", 2023, this term keeps no count of how often codes are used: it is a
    function of the batch, so a continued run and a run on more devices give the same result.
    """
    flat = jax.lax.stop_gradient(z.reshape(-1, z.shape[-1]).astype(jnp.float32))
    squared = jax.lax.stop_gradient(distances(flat, codebook))
    used = usage(jnp.argmin(squared, axis=-1), codebook.shape[0]) > 0
    target = flat[jnp.argmin(squared, axis=0)]
    return jnp.sum(jnp.mean((codebook - target) ** 2, axis=-1) * ~used) / codebook.shape[0]


def usage(tokens: Int[Array, "*dims"], codes: int) -> Float[Array, " {codes}"]:
    """[codes] float32: the fraction of the tokens that are each code."""
    return jnp.zeros(codes).at[tokens.reshape(-1)].add(1.0) / tokens.size


def usage_metrics(tokens: Int[Array, "*dims"], codes: int) -> Metrics:
    """codebook_usage: fraction of codes in use; codebook_perplexity: exp of their entropy."""
    fractions = usage(tokens, codes)
    entropy = -jnp.sum(jax.scipy.special.xlogy(fractions, fractions))
    return {"codebook_usage": jnp.mean(fractions > 0), "codebook_perplexity": jnp.exp(entropy)}
