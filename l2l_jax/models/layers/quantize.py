"""Vector quantisation: the nearest code of a codebook, and the terms that train one.

van den Oord et al., "Neural Discrete Representation Learning", 2017. Distances are squared and
Euclidean, computed in float32 whatever the network computes in: one flipped token is another image.
"""

import jax
import jax.numpy as jnp

from l2l_jax.types import Array

COMMITMENT = 0.25  # weight of the pull of the encoder towards its codes


def distances(z: Array, codebook: Array) -> Array:
    """z: [..., C] and codebook: [N, C] -> [..., N] float32, |z - e|^2."""
    z, codebook = z.astype(jnp.float32), codebook.astype(jnp.float32)
    cross = jnp.einsum("...c,nc->...n", z, codebook, precision="highest")
    return jnp.sum(z**2, -1, keepdims=True) + jnp.sum(codebook**2, -1) - 2 * cross


def nearest(z: Array, codebook: Array) -> Array:
    """[..., C] -> [...] int32, the index of the nearest code; the first of equals."""
    return jnp.argmin(distances(z, codebook), axis=-1).astype(jnp.int32)


def straight_through(z: Array, quantized: Array) -> Array:
    """The value of `quantized` with the gradient of z."""
    return z + jax.lax.stop_gradient(quantized - z)


def commitment(z: Array, quantized: Array) -> Array:
    """[B, h, w, C] twice -> [B]: codes are pulled to what they stand for, and the encoder to codes.

    |sg(z) - e|^2 + 0.25 |z - sg(e)|^2. The released network's class swaps the two weights, which
    changes no value.
    """
    fixed = jax.lax.stop_gradient
    to_codes = jnp.mean((fixed(z) - quantized) ** 2, axis=(1, 2, 3))
    return to_codes + COMMITMENT * jnp.mean((z - fixed(quantized)) ** 2, axis=(1, 2, 3))


def revival(z: Array, codebook: Array) -> Array:
    """Pulls each code that nothing in the batch chose to the latent nearest to it; scalar.

    A dead code gets no gradient from `commitment` and would stay dead. This one keeps no count of
    how often codes are used (compare Zheng & Vedaldi, "Online Clustered Codebook", 2023): it is a
    function of the batch, so that a continued run and a run on more devices do the same.
    """
    flat = jax.lax.stop_gradient(z.reshape(-1, z.shape[-1]).astype(jnp.float32))
    apart = jax.lax.stop_gradient(distances(flat, codebook))
    used = usage(jnp.argmin(apart, axis=-1), codebook.shape[0]) > 0
    goal = flat[jnp.argmin(apart, axis=0)]
    return jnp.sum(jnp.mean((codebook - goal) ** 2, axis=-1) * ~used) / codebook.shape[0]


def usage(tokens: Array, codes: int) -> Array:
    """[codes] float32, the share of the tokens that each code has."""
    return jnp.zeros(codes).at[tokens.reshape(-1)].add(1.0) / tokens.size


def about_usage(tokens: Array, codes: int) -> dict[str, Array]:
    """codebook_usage: the share of codes used at all; codebook_perplexity: exp of their entropy."""
    share = usage(tokens, codes)
    entropy = -jnp.sum(jax.scipy.special.xlogy(share, share))
    return {"codebook_usage": jnp.mean(share > 0), "codebook_perplexity": jnp.exp(entropy)}
