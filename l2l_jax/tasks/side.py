"""Hide a strip along one edge (left, right, up or down) that is `cells` cells wide."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.lib.masks import MAX_CELLS, MAX_FINER, refine_grid, visible_cells
from l2l_jax.types import Bounds, Mask, Rng, Visible

EDGES = ("left", "right", "up", "down")

EXAMPLE = dict(cells=1, edge="left", finer=2)
BOUNDS = {"cells": Bounds(1, MAX_CELLS), "finer": Bounds(1, MAX_FINER)}


def visible(
    grid: tuple[int, int], *, cells: int = 1, edge: str = "right", finer: int = 1
) -> Visible:
    """(fewest, most) visible cells: those outside of the strip."""
    return visible_cells(_strip(refine_grid(grid, finer), cells, edge), finer)


def mask(
    rng: Rng,
    batch: int,
    grid: tuple[int, int],
    *,
    cells: int = 1,
    edge: str = "right",
    finer: int = 1,
) -> Mask:
    """The same mask for every example. finer: see lib/masks.py."""
    del rng
    hidden = _strip(refine_grid(grid, finer), cells, edge)
    return jnp.broadcast_to(hidden, (batch, *hidden.shape))


def _strip(grid: tuple[int, int], cells: int, edge: str) -> Bool[np.ndarray, "h w"]:
    if edge not in EDGES:
        raise unknown_name("edge", edge, EDGES)
    axis = 1 if edge in ("left", "right") else 0
    if not 0 < cells < grid[axis]:
        raise ConfigError(f"A strip of {cells} cells does not fit a grid of {grid[axis]}.")
    hidden = np.zeros(grid, bool)
    part = slice(None, cells) if edge in ("left", "up") else slice(grid[axis] - cells, None)
    hidden[(slice(None), part) if axis else part] = True
    return hidden
