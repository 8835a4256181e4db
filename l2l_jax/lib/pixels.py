"""Images on the device: from bytes to numbers, and what a mask of cells hides of them."""

import jax.numpy as jnp

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Array


def unit(images: Array) -> Array:
    """uint8 -> float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255.0


def hidden(mask: Array, image_size: int) -> Array:
    """[B, h, w] bool on cells -> [B, H, W, 1] bool on pixels; h and w must divide image_size."""
    height, width = mask.shape[1:]
    if image_size % height or image_size % width:
        raise ConfigError(f"A {height}x{width} grid does not divide {image_size} pixels.")
    rows = jnp.repeat(mask, image_size // height, axis=1)
    return jnp.repeat(rows, image_size // width, axis=2)[..., None]


def coarse(mask: Array, grid: tuple[int, int]) -> Array:
    """[B, h, w] bool -> [B, *grid]: whether anything of a cell is hidden; h, w: multiples of it."""
    (_, height, width), (rows, columns) = mask.shape, grid
    if height % rows or width % columns:
        raise ValueError(
            f"A mask of {height}x{width} cells does not fit a grid of {rows}x{columns}."
        )
    return mask.reshape(-1, rows, height // rows, columns, width // columns).any(axis=(2, 4))


def paste(images: Array, made: Array, mask: Array) -> Array:
    """`made`, clipped to [0, 1], where hidden; elsewhere `images` untouched. [B, H, W, 3]."""
    return jnp.where(hidden(mask, images.shape[1]), jnp.clip(made, 0.0, 1.0), images)
