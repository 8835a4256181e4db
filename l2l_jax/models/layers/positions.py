"""Fixed two-dimensional sine-cosine positions, and their resizing to another grid."""

import jax
import numpy as np
from jaxtyping import Float, Int

from l2l_jax.types import Array


def sincos_1d(width: int, places: Int[np.ndarray, " N"]) -> Float[np.ndarray, "N {width}"]:
    """[N, width] float64: all sines, then all cosines, of frequencies 10000^(-2i/width)."""
    frequency = 10000.0 ** (-np.arange(width // 2) / (width / 2))
    angle = np.outer(places, frequency)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def sincos_2d(width: int, grid: int, class_row: bool) -> Float[np.ndarray, "N {width}"]:
    """[class_row + grid * grid, width] float64, row-major over the grid.

    The first half of the channels encodes the column, the second half the row; the class row is
    zero (He et al. 2022, as released). ValueError for a width that 4 does not divide.
    """
    if width % 4:
        raise ValueError(f"Sine-cosine positions need a width divisible by 4, not {width}.")
    row, column = np.divmod(np.arange(grid * grid), grid)
    halves = [sincos_1d(width // 2, column), sincos_1d(width // 2, row)]
    table = np.concatenate(halves, axis=1)
    return np.concatenate([np.zeros((1, width)), table]) if class_row else table


def resize(table: Float[Array | np.ndarray, "N D"], grid: int) -> Float[np.ndarray, "M D"]:
    """[1 + n * n, D] -> [1 + grid * grid, D], bicubic; the class row is kept.

    ValueError if the table is not a class row and a square grid.
    """
    old = round((table.shape[0] - 1) ** 0.5)
    if old * old != table.shape[0] - 1:
        raise ValueError(f"{table.shape[0]} positions are not a class row and a square grid.")
    square = table[1:].reshape(old, old, -1)
    shape = (grid, grid, table.shape[1])
    resized = jax.image.resize(square, shape, "cubic-pytorch", antialias=False)
    return np.concatenate([table[:1], resized.reshape(grid * grid, -1)])
