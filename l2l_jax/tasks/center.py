"""Inpainting: hide the central block of `cells` x `cells` cells."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from l2l_jax.lib.masks import (
    MAX_CELLS,
    MAX_FINER,
    central_block,
    refine_grid,
    visible_cells,
    with_margin,
)
from l2l_jax.types import Bounds, Mask, Rng, Visible

EXAMPLE = dict(cells=2)
BOUNDS = {"cells": Bounds(1, MAX_CELLS), "finer": Bounds(1, MAX_FINER)}


def visible(
    grid: tuple[int, int], *, cells: int = 4, finer: int = 1, margin: str = "symmetric"
) -> Visible:
    """(fewest, most) visible cells: those outside of the block. ConfigError if there are none."""
    return with_margin(visible_cells(_hidden(grid, cells, finer), finer), margin)


def mask(
    rng: Rng,
    batch: int,
    grid: tuple[int, int],
    *,
    cells: int = 4,
    finer: int = 1,
    margin: str = "symmetric",
) -> Mask:
    """The same mask for every example.

    finer: see lib/masks.py. margin: "symmetric", or "released" for a model of tokens that hides a
    margin around the hole as the released code of MAGE does. It changes what the model is shown,
    not the mask.
    """
    del rng, margin
    hidden = _hidden(grid, cells, finer)
    return jnp.broadcast_to(hidden, (batch, *hidden.shape))


def _hidden(grid: tuple[int, int], cells: int, finer: int) -> Bool[np.ndarray, "h w"]:
    return central_block(refine_grid(grid, finer), cells)
