"""Masks on a grid of cells. True = hidden, everywhere.

A task may draw on a grid `finer` times as fine as the model's, so that a hole need not end where a
cell ends; whatever overlaps a hole is then hidden from the model as a whole.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Array

ROUNDING = 1e-6  # of the side of an image; what float32 loses of a place on it is less


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


def refined(grid: tuple[int, int], finer: int) -> tuple[int, int]:
    """The grid with every cell cut into finer x finer."""
    if not isinstance(finer, int) or finer < 1:
        raise ConfigError(f"A grid is a whole number of times as fine as the model's, not {finer}.")
    return grid[0] * finer, grid[1] * finer


def bounds(hidden: np.ndarray, finer: int) -> tuple[int, int]:
    """(fewest, most) cells of the model that a fixed mask leaves visible: the same number."""
    rows, columns = (side // finer for side in hidden.shape)
    coarse = hidden.reshape(rows, finer, columns, finer).any(axis=(1, 3))
    return int((~coarse).sum()), int((~coarse).sum())


def boxed(low: Array, high: Array, grid: tuple[int, int]) -> Array:
    """[B, h, w] bool: cells whose centre is in a box from `low` up to `high`.

    Both [B, 2], (row, column) as shares of the side of the image.
    """
    rows, columns = (
        (low[:, axis, None] <= at) & (at < high[:, axis, None])
        for axis, at in enumerate(map(_centres, grid))
    )
    return rows[:, :, None] & columns[:, None, :]


def brushed(points: Array, width: Array, grid: tuple[int, int]) -> Array:
    """[B, h, w] bool: cells whose centre is within half a width of one of K strokes.

    points: [B, K, V, 2], the ends of straight lines, (row, column) as shares of the side of the
    image; width: [B, K], 0 for no stroke. A brush is at least as wide as the diagonal of a cell, so
    that a stroke hides every cell that its middle passes through. One line is drawn after the
    other: nothing is ever as large as all of them on the whole grid.
    """
    least = math.hypot(1 / grid[0], 1 / grid[1])
    reach = jnp.where(width > 0, jnp.maximum(width, least) / 2 + ROUNDING, -1.0)
    rows, columns = _centres(grid[0])[:, None], _centres(grid[1])[None, :]

    def draw(hidden: Array, line: tuple[Array, Array, Array]) -> tuple[Array, None]:
        (top, left), (down, right), near = (x.T[..., None, None] for x in line)
        y, x = rows - top, columns - left
        length = jnp.maximum(down**2 + right**2, ROUNDING**2)
        along = jnp.clip((y * down + x * right) / length, 0.0, 1.0)
        away = (y - along * down) ** 2 + (x - along * right) ** 2
        return hidden | (away <= near * jnp.abs(near)), None

    starts, ways = points[:, :, :-1], jnp.diff(points, axis=2)
    reach = jnp.broadcast_to(reach[..., None], ways.shape[:3])
    lines = jax.tree.map(_lines_first, (starts, ways, reach))
    return jax.lax.scan(draw, jnp.zeros((points.shape[0], *grid), bool), lines)[0]


def touched(length: float, cells: int, finer: int) -> tuple[int, int]:
    """(fewest, most) of the cells of a side that a stretch of it hides, wherever it lies.

    As `boxed` does it on a grid `finer` times as fine: n centres are 1/n apart, so a stretch holds
    at least floor(length * n) of them and at most one more, all next to each other.
    """
    fewest = max(0, math.floor((length - ROUNDING) * cells * finer))
    most = math.ceil((length + ROUNDING) * cells * finer)
    return -(-fewest // finer), min(cells, (most - 2) // finer + 2)


def _centres(cells: int) -> np.ndarray:
    return ((np.arange(cells) + 0.5) / cells).astype(np.float32)


def _lines_first(x: Array) -> Array:
    """[B, K, V, ...] -> [K * V, B, ...]"""
    return jnp.moveaxis(x.reshape(x.shape[0], -1, *x.shape[3:]), 1, 0)
