"""Iterative parallel decoding of masked tokens (MaskGIT, Chang et al., CVPR 2022), as released.

In each step all open tokens are drawn, and the least sure of them are masked again: fewer and
fewer, by a cosine. Sureness is log p + temperature * (1 - t) * Gumbel noise. Kept of the released
code: the cosine is multiplied by the number of all tokens, not of the hidden ones, so that an image
sits out the first steps until the share that stays open is below the share that is hidden of it; at
least one token stays open between steps; what the last step draws is final.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.types import Array


def decode(
    tokens: Array,
    hidden: Array,
    predict: Callable[[Array, Array], Array],
    rng: Array,
    *,
    mask_id: int,
    steps: int,
    temperature: float,
) -> Array:
    """Codes for the hidden tokens; tokens: [B, L] int32, hidden: [B, L] bool -> [B, L] int32.

    predict: (tokens with mask_id where open, open) -> logits [B, L, codes]. One program for the
    whole batch; a step that no image takes part in is skipped.
    """
    done = (np.arange(steps) + 1) / steps
    left = np.cos(np.pi / 2 * done)  # share of all tokens that stay open
    masked = jnp.mean(hidden, axis=1)

    def step(tokens: Array, at: Array) -> tuple[Array, None]:
        active = (jnp.asarray(left, jnp.float32)[at] < masked) & (masked > 0)

        def moved() -> Array:
            opened = tokens == mask_id
            logits = predict(tokens, opened)
            code, noise = jax.random.split(jax.random.fold_in(rng, at))
            drawn = jax.random.categorical(code, logits).astype(jnp.int32)
            drawn = jnp.where(opened, drawn, tokens)
            heat = temperature * (1 - jnp.asarray(done, jnp.float32)[at])
            gumbel = heat * jax.random.gumbel(noise, drawn.shape)
            keep = jnp.asarray(np.floor(tokens.shape[1] * left), jnp.int32)[at]
            again = least_sure(logits, drawn, opened, gumbel, keep) & (at < steps - 1)
            chosen = jnp.where(again, mask_id, drawn)
            return jnp.where(active[:, None], chosen, tokens)

        return jax.lax.cond(jnp.any(active), moved, lambda: tokens), None

    return jax.lax.scan(step, jnp.where(hidden, mask_id, tokens), jnp.arange(steps))[0]


def least_sure(logits: Array, drawn: Array, opened: Array, noise: Array, keep: Array) -> Array:
    """[B, L] bool: the open tokens that are masked again, `keep` of every image."""
    chance = jnp.take_along_axis(jax.nn.softmax(logits), drawn[..., None], axis=-1)[..., 0]
    sure = jnp.where(opened, jnp.log(chance) + noise, jnp.inf)
    keep = jnp.maximum(1, jnp.minimum(jnp.sum(opened, axis=1) - 1, keep))
    cut = jnp.take_along_axis(jnp.sort(sure, axis=1), keep[:, None] - 1, axis=1)
    return opened & (sure <= cut)
