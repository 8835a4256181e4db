"""Hide a random share of the cells, as masked autoencoders are trained (He et al. 2022)."""

import jax
import jax.numpy as jnp

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Array

EXAMPLE = dict(ratio=0.75)


def visible(grid: tuple[int, int], *, ratio: float = 0.75) -> tuple[int, int]:
    """int(L * (1 - ratio)), truncated as released, in every example."""
    if not 0 < ratio < 1:
        raise ConfigError(f"The random task hides a ratio between 0 and 1, not {ratio}.")
    shown = int(grid[0] * grid[1] * (1 - ratio))
    return shown, shown


def mask(rng: Array, batch: int, grid: tuple[int, int], *, ratio: float = 0.75) -> Array:
    """[batch, h, w] bool, True = hidden; each example its own draw."""
    noise = jax.random.uniform(rng, (batch, grid[0] * grid[1]))
    _, restore = order(noise)
    return (restore >= visible(grid, ratio=ratio)[0]).reshape(batch, *grid)


def order(noise: Array) -> tuple[Array, Array]:
    """(cells from the smallest noise to the largest, rank of every cell), both [B, L] int.

    The first `visible` cells of the first array are the ones kept.
    """
    shuffle = jnp.argsort(noise, axis=1)
    return shuffle, jnp.argsort(shuffle, axis=1)
