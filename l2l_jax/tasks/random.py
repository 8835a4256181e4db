"""Hide a fixed number of random cells, as masked autoencoders are trained (He et al. 2022)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.masks import leaves_some
from l2l_jax.types import Bounds, Mask, Rng, Visible

EXAMPLE = dict(ratio=0.75)
BOUNDS = {"ratio": Bounds(0, 1, open_low=True, open_high=True)}


def visible(grid: tuple[int, int], *, ratio: int | float = 0.75) -> Visible:
    """(fewest, most) visible cells: both int(cells * (1 - ratio)), truncated as released."""
    if not 0 < ratio < 1:
        raise ConfigError(f"The random task hides a ratio between 0 and 1, not {ratio}.")
    count = int(grid[0] * grid[1] * (1 - ratio))
    return leaves_some((count, count), grid)


def mask(rng: Rng, batch: int, grid: tuple[int, int], *, ratio: int | float = 0.75) -> Mask:
    """[batch, h, w]: each example hides other cells. ratio: the fraction of hidden cells."""
    noise = jax.random.uniform(rng, (batch, grid[0] * grid[1]))
    _, rank = order(noise)
    return (rank >= visible(grid, ratio=ratio)[0]).reshape(batch, *grid)


def order(noise: Float[Array, "B L"]) -> tuple[Int[Array, "B L"], Int[Array, "B L"]]:
    """(cells sorted by their noise, rank of every cell in that order).

    The first `visible` cells of the first array are the visible ones.
    """
    shuffle = jnp.argsort(noise, axis=1)
    return shuffle, jnp.argsort(shuffle, axis=1)
