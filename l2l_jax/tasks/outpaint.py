"""Out-painting ("uncropping"): show only the central block of `cells` x `cells` cells."""

import jax.numpy as jnp

from l2l_jax.lib.masks import central
from l2l_jax.types import Array


def visible(grid: tuple[int, int], *, cells: int = 4) -> int:
    """The cells of the block."""
    return int(central(grid, cells).sum())


def mask(rng: Array, batch: int, grid: tuple[int, int], *, cells: int = 4) -> Array:
    """[batch, h, w] bool, True = hidden; the same in every example."""
    del rng
    return jnp.broadcast_to(~central(grid, cells), (batch, *grid))
