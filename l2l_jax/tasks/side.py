"""Hide a strip of `cells` cells along one edge: left, right, up or down."""

import jax.numpy as jnp
import numpy as np

from l2l_jax.lib.errors import ConfigError, unknown
from l2l_jax.types import Array

EDGES = ("left", "right", "up", "down")


def visible(grid: tuple[int, int], *, cells: int = 1, edge: str = "right") -> int:
    """All cells but the strip."""
    return int((~_strip(grid, cells, edge)).sum())


def mask(
    rng: Array, batch: int, grid: tuple[int, int], *, cells: int = 1, edge: str = "right"
) -> Array:
    """[batch, h, w] bool, True = hidden; the same in every example."""
    del rng
    return jnp.broadcast_to(_strip(grid, cells, edge), (batch, *grid))


def _strip(grid: tuple[int, int], cells: int, edge: str) -> np.ndarray:
    if edge not in EDGES:
        raise unknown("edge", edge, EDGES)
    axis = 1 if edge in ("left", "right") else 0
    if not 0 < cells < grid[axis]:
        raise ConfigError(f"A strip of {cells} cells does not fit a grid of {grid[axis]}.")
    hidden = np.zeros(grid, bool)
    part = slice(None, cells) if edge in ("left", "up") else slice(grid[axis] - cells, None)
    hidden[(slice(None), part) if axis else part] = True
    return hidden
