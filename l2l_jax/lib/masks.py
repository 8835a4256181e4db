"""Masks on a grid of cells and on pixels. True = hidden, everywhere."""

import jax.numpy as jnp
import numpy as np

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Array


def central(grid: tuple[int, int], cells: int) -> np.ndarray:
    """[h, w] bool, the central cells x cells block; an odd remainder goes right and below."""
    if not 0 < cells < min(grid):
        raise ConfigError(
            f"A central block of {cells} cells does not fit a {grid[0]}x{grid[1]} grid; "
            f"take 1 to {min(grid) - 1}."
        )
    block = np.zeros(grid, bool)
    top, left = (grid[0] - cells) // 2, (grid[1] - cells) // 2
    block[top : top + cells, left : left + cells] = True
    return block


def to_pixels(mask: Array, image_size: int) -> Array:
    """[B, h, w] bool on cells -> [B, H, W, 1] bool on pixels; h and w must divide image_size."""
    height, width = mask.shape[1:]
    if image_size % height or image_size % width:
        raise ValueError(f"A {height}x{width} grid does not divide {image_size} pixels.")
    rows = jnp.repeat(mask, image_size // height, axis=1)
    return jnp.repeat(rows, image_size // width, axis=2)[..., None]


def paste(images: Array, made: Array, mask: Array) -> Array:
    """`made`, clipped to [0, 1], where hidden; elsewhere `images` untouched. [B, H, W, 3]."""
    hidden = to_pixels(mask, images.shape[1])
    return jnp.where(hidden, jnp.clip(made, 0.0, 1.0), images)
