"""Iterative parallel decoding of masked tokens (MaskGIT, Chang et al., CVPR 2022), as released.

Each step samples all open tokens and masks the least confident of them again; their number falls
with a cosine. Confidence is log p + temperature * (1 - t) * Gumbel noise. Released behaviour kept:
the cosine is multiplied by the number of all tokens instead of the hidden ones, so an image skips
the first steps, until the fraction that stays open is below its hidden fraction; at least one token
stays open between two steps; the tokens that the last step samples are final.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from l2l_jax.types import Array, Rng

Ids = Int[Array, "B L"]
Flags = Bool[Array, "B L"]
Logits = Float[Array, "B L codes"]


def decode(
    tokens: Ids,
    hidden: Flags,
    predict: Callable[[Ids, Flags], Logits],
    rng: Rng,
    *,
    mask_id: int,
    steps: int,
    temperature: int | float,
) -> Ids:
    """[B, L] int32: the tokens with sampled codes where `hidden`.

    predict(tokens with mask_id where open, open) returns logits. A step that no image takes part in
    is skipped.
    """
    done = (np.arange(steps) + 1) / steps
    open_fraction = np.cos(np.pi / 2 * done)  # of all tokens, after each step
    hidden_fraction = jnp.mean(hidden, axis=1)

    def step(tokens: Array, at: Array) -> tuple[Array, None]:
        below = jnp.asarray(open_fraction, jnp.float32)[at] < hidden_fraction
        active = below & (hidden_fraction > 0)

        def updated() -> Array:
            opened = tokens == mask_id
            logits = predict(tokens, opened)
            code, noise = jax.random.split(jax.random.fold_in(rng, at))
            drawn = jax.random.categorical(code, logits).astype(jnp.int32)
            drawn = jnp.where(opened, drawn, tokens)
            scale = temperature * (1 - jnp.asarray(done, jnp.float32)[at])
            gumbel = scale * jax.random.gumbel(noise, drawn.shape)
            keep = jnp.asarray(np.floor(tokens.shape[1] * open_fraction), jnp.int32)[at]
            again = least_confident(logits, drawn, opened, gumbel, keep) & (at < steps - 1)
            chosen = jnp.where(again, mask_id, drawn)
            return jnp.where(active[:, None], chosen, tokens)

        return jax.lax.cond(jnp.any(active), updated, lambda: tokens), None

    return jax.lax.scan(step, jnp.where(hidden, mask_id, tokens), jnp.arange(steps))[0]


def least_confident(
    logits: Logits, drawn: Ids, opened: Flags, noise: Float[Array, "B L"], keep: Int[Array, "*n"]
) -> Flags:
    """[B, L] bool: the `keep` least confident of the open tokens of each image."""
    probability = jnp.take_along_axis(jax.nn.softmax(logits), drawn[..., None], axis=-1)[..., 0]
    confidence = jnp.where(opened, jnp.log(probability) + noise, jnp.inf)
    keep = jnp.maximum(1, jnp.minimum(jnp.sum(opened, axis=1) - 1, keep))
    cut = jnp.take_along_axis(jnp.sort(confidence, axis=1), keep[:, None] - 1, axis=1)
    return opened & (confidence <= cut)
