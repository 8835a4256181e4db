"""Images on the device: bytes to floats, and masks on cells to masks on pixels."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from l2l_jax.lib.errors import ConfigError

AnyArray = Array | np.ndarray
SMALLEST_ERROR = 1e-10  # of a mean squared error, so that PSNR is at most 100 dB


def to_unit_range(images: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]:
    """uint8 in 0..255 -> float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255.0


def psnr(mse: Float[np.ndarray, "*rows"]) -> Float[np.ndarray, "*rows"]:
    """PSNR in dB, peak value 1, of mean squared errors; at most 100."""
    return -10 * np.log10(np.maximum(mse, SMALLEST_ERROR))


def hidden_pixels(mask: Bool[AnyArray, "B h w"], image_size: int) -> Bool[Array, "B H W 1"]:
    """[B, h, w] on cells -> [B, H, W, 1] on pixels, H = W = image_size.

    ConfigError unless h and w divide image_size.
    """
    height, width = mask.shape[1:]
    if image_size % height or image_size % width:
        raise ConfigError(f"A {height}x{width} grid does not divide {image_size} pixels.")
    rows = jnp.repeat(mask, image_size // height, axis=1)
    return jnp.repeat(rows, image_size // width, axis=2)[..., None]


def coarsen_mask(
    mask: Bool[AnyArray, "B h w"], grid: tuple[int, int]
) -> Bool[Array, "B rows cols"]:
    """[B, h, w] -> [B, *grid]: True for a cell of the grid if any part of it is hidden.

    ValueError unless h and w are multiples of the grid.
    """
    (_, height, width), (rows, columns) = mask.shape, grid
    if height % rows or width % columns:
        raise ValueError(
            f"A mask of {height}x{width} cells does not fit a grid of {rows}x{columns}."
        )
    mask = jnp.asarray(mask)
    return mask.reshape(-1, rows, height // rows, columns, width // columns).any(axis=(2, 4))


def paste(
    images: Float[AnyArray, "B H W 3"],
    completed: Float[AnyArray, "B H W 3"],
    mask: Bool[AnyArray, "B h w"],
) -> Float[Array, "B H W 3"]:
    """`completed`, clipped to [0, 1], on hidden pixels; `images`, unchanged, on visible ones."""
    return jnp.where(hidden_pixels(mask, images.shape[1]), jnp.clip(completed, 0.0, 1.0), images)
