"""Masks on a grid of cells. True = hidden, everywhere.

A task may draw its mask on a grid `finer` times as fine as the model's, so that a hole may end
inside a cell of the model. The model then hides every cell that a hole overlaps.

A model of tokens may hide a margin of cells around the hole, too. It is as wide on all sides,
unless the task asks for the one of the released code of MAGE (MARGINS).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from l2l_jax.lib.errors import ConfigError, unknown_name

MAX_CELLS = 4096  # of one side of a grid
MAX_FINER = 64
ROUNDING = 1e-6  # tolerance, in units of the image's side: above the rounding errors of float32

AnyArray = Array | np.ndarray

MARGINS = ("symmetric", "released")


class OneSided(tuple[int, int]):
    """(fewest, most) visible cells of a task whose margin is the released one.

    The released code of MAGE rounds both ends of a hole down to whole cells before it adds the
    margin. Where a hole ends inside a cell, the margin after it thus begins with this cell, and the
    margin before it with the cell before.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OneSided) and tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((OneSided, tuple(self)))


def central_block(grid: tuple[int, int], cells: int) -> Bool[np.ndarray, "h w"]:
    """True in the central block of cells x cells.

    If it cannot lie exactly in the middle, the larger margin is right or below. ConfigError unless
    the block is smaller than the grid.
    """
    if not 0 < cells < min(grid):
        raise ConfigError(
            f"A central block of {cells} cells does not fit a {grid[0]}x{grid[1]} grid; "
            f"take 1 to {min(grid) - 1}."
        )
    block = np.zeros(grid, bool)
    top, left = (grid[0] - cells) // 2, (grid[1] - cells) // 2
    block[top : top + cells, left : left + cells] = True
    return block


def refine_grid(grid: tuple[int, int], finer: int | float) -> tuple[int, int]:
    """The grid with every cell divided into finer x finer. ConfigError unless finer = 1, 2, ..."""
    if not isinstance(finer, int) or finer < 1:
        raise ConfigError(
            f"finer is how many times as fine as the model's grid the mask is: 1, 2, ..., not "
            f"{finer}."
        )
    return grid[0] * finer, grid[1] * finer


def visible_cells(hidden: Bool[np.ndarray, "h w"], finer: int) -> tuple[int, int]:
    """(fewest, most) cells of the model's grid that a fixed mask leaves visible: equal numbers."""
    rows, columns = (side // finer for side in hidden.shape)
    coarse = hidden.reshape(rows, finer, columns, finer).any(axis=(1, 3))
    visible = int((~coarse).sum())
    return leaves_some((visible, visible), (rows, columns))


def leaves_some(visible: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """(fewest, most) visible cells, unchanged. ConfigError if no mask leaves a cell visible."""
    if visible[1] < 1:
        raise ConfigError(
            f"These settings hide all {grid[0]}x{grid[1]} cells of the model; nothing would be "
            "left to complete the image from. Hide less."
        )
    return visible


def with_margin(visible: tuple[int, int], margin: str) -> tuple[int, int]:
    """(fewest, most) visible cells, as OneSided for the released margin; ConfigError if unknown."""
    if margin not in MARGINS:
        raise unknown_name("margin", margin, MARGINS)
    return OneSided(visible) if margin == "released" else visible


def draw_boxes(
    low: Float[AnyArray, "B 2"], high: Float[AnyArray, "B 2"], grid: tuple[int, int]
) -> Bool[Array, "B h w"]:
    """True for cells whose centre is in the box from corner `low` to corner `high`.

    A corner is (row, column) as fractions of the image's side.
    """
    low, high = jnp.asarray(low), jnp.asarray(high)
    rows, columns = (
        (low[:, axis, None] <= at) & (at < high[:, axis, None])
        for axis, at in enumerate(map(_centres, grid))
    )
    return rows[:, :, None] & columns[:, None, :]


def draw_strokes(
    points: Float[AnyArray, "B K V 2"], width: Float[AnyArray, "B K"], grid: tuple[int, int]
) -> Bool[Array, "B h w"]:
    """True for cells whose centre is within half a width of one of K strokes.

    points: the corners of each stroke, which is a chain of V - 1 straight lines, as (row, column)
    in fractions of the image's side. width: of each stroke, 0 for no stroke. A brush is at least as
    wide as the diagonal of a cell, so that a stroke hides every cell that its middle line crosses.
    Lines are drawn one after the other: no array holds all lines on the whole grid.
    """
    points, width = jnp.asarray(points), jnp.asarray(width)
    diagonal = math.hypot(1 / grid[0], 1 / grid[1])
    reach = jnp.where(width > 0, jnp.maximum(width, diagonal) / 2 + ROUNDING, -1.0)
    rows, columns = _centres(grid[0])[:, None], _centres(grid[1])[None, :]

    def draw(hidden: Array, line: tuple[Array, Array, Array]) -> tuple[Array, None]:
        (top, left), (down, right), radius = (x.T[..., None, None] for x in line)
        y, x = rows - top, columns - left
        length = jnp.maximum(down**2 + right**2, ROUNDING**2)
        along = jnp.clip((y * down + x * right) / length, 0.0, 1.0)
        squared = (y - along * down) ** 2 + (x - along * right) ** 2  # distance to the line
        return hidden | (squared <= radius * jnp.abs(radius)), None

    starts, directions = points[:, :, :-1], jnp.diff(points, axis=2)
    reach = jnp.broadcast_to(reach[..., None], directions.shape[:3])
    lines = jax.tree.map(_lines_first, (starts, directions, reach))
    return jax.lax.scan(draw, jnp.zeros((points.shape[0], *grid), bool), lines)[0]


def hidden_cells_of_side(length: int | float, cells: int, finer: int) -> tuple[int, int]:
    """(fewest, most) cells of one side that an interval of this length hides, wherever it lies.

    length: a fraction of the side. The rule is that of `draw_boxes` on a grid `finer` times as
    fine: n centres are 1/n apart, so an interval contains at least floor(length * n) consecutive
    centres and at most one more.
    """
    fewest = max(0, math.floor((length - ROUNDING) * cells * finer))
    most = math.ceil((length + ROUNDING) * cells * finer)
    return -(-fewest // finer), min(cells, (most - 2) // finer + 2)


def _centres(cells: int) -> Float[np.ndarray, " cells"]:
    return ((np.arange(cells) + 0.5) / cells).astype(np.float32)


def _lines_first(x: Array) -> Array:
    """[B, K, V, ...] -> [K * V, B, ...]"""
    return jnp.moveaxis(x.reshape(x.shape[0], -1, *x.shape[3:]), 1, 0)
