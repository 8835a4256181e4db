"""In-painting: hide the central block of `cells` x `cells` cells."""

import jax.numpy as jnp
import numpy as np

from l2l_jax.lib.masks import bounds, central, refined
from l2l_jax.types import Array

EXAMPLE = dict(cells=2)


def visible(grid: tuple[int, int], *, cells: int = 4, finer: int = 1) -> tuple[int, int]:
    """All cells but the block."""
    return bounds(_hidden(grid, cells, finer), finer)


def mask(rng: Array, batch: int, grid: tuple[int, int], *, cells: int = 4, finer: int = 1) -> Array:
    """[batch, h, w] bool, True = hidden; the same in every example. finer: see lib/masks.py."""
    del rng
    hidden = _hidden(grid, cells, finer)
    return jnp.broadcast_to(hidden, (batch, *hidden.shape))


def _hidden(grid: tuple[int, int], cells: int, finer: int) -> np.ndarray:
    return central(refined(grid, finer), cells)
