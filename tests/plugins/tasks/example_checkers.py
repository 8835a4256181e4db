"""Example task: hide every second cell, like the black squares of a chess board."""

import jax.numpy as jnp
import numpy as np

from l2l_jax.types import Array


def visible(grid: tuple[int, int], *, first: int = 0) -> tuple[int, int]:
    """(fewest, most) visible cells: the same in every image."""
    count = int((~_hidden(grid, first)).sum())
    return count, count


def mask(rng: Array, batch: int, grid: tuple[int, int], *, first: int = 0) -> Array:
    """[batch, h, w] bool, True = hidden; the same in every image."""
    del rng
    return jnp.broadcast_to(_hidden(grid, first), (batch, *grid))


def _hidden(grid: tuple[int, int], first: int) -> np.ndarray:
    return np.add.outer(np.arange(grid[0]), np.arange(grid[1])) % 2 == first % 2
