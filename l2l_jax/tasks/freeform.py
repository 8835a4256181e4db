"""Inpainting of free-form holes, as Palette is trained: a random box and strokes of a brush.

Strokes: Yu et al., "Free-form image inpainting with gated convolution", ICCV 2019. The numbers are
those of the public PyTorch code of Palette (mask_mode "hybrid": 256 x 256 pixels), as fractions of
the image's side, so that a key draws the same shapes on a grid of any size. Where that code differs
from its own comments, this file follows the code: a box shrinks at its upper and left edge, not
around its centre, and a stroke of n "vertices" has n lines, that is n + 1 points.

Departures. The released code computes flips of the strokes but does not apply them; this file does.
Positions and sizes are not rounded to pixels. A brush is at least as wide as the diagonal of a
cell, so that no stroke lies between cell centres; with the default widths this matters on grids
below 31 cells.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.masks import (
    MAX_FINER,
    ROUNDING,
    draw_boxes,
    draw_strokes,
    hidden_cells_of_side,
    leaves_some,
    refine_grid,
)
from l2l_jax.types import Bounds, Mask, Rng, Visible

LENGTH_MEAN, LENGTH_STD = math.sqrt(2) / 8, 22 / 256  # of a line; clipped to 0 .. 2 * LENGTH_MEAN
ANGLE, MAX_TURN = 2 * math.pi / 5, 2 * math.pi / 15  # radians; a line has ANGLE -/+ up to MAX_TURN

Interval = Any  # two numbers, (least, most), in a config; anything else is a ConfigError
Number = int | float

EXAMPLE = dict(finer=2)
BOUNDS = {
    "side": Bounds(0, 1),
    "shrink": Bounds(0, 1),
    "margin": Bounds(0, 0.5),
    "loops": Bounds(0, 1000),
    "vertices": Bounds(1, 1000),
    "width": Bounds(0, 1, open_low=True),
    "finer": Bounds(1, MAX_FINER),
}


class Strokes(NamedTuple):
    """Checked arguments of `mask` for the strokes."""

    loops: int
    vertices: tuple[int, int]
    width: tuple[float, float]


def visible(
    grid: tuple[int, int],
    *,
    side: Number = 128 / 256,
    shrink: Number = 20 / 256,
    margin: Number = 20 / 256,
    loops: Number = 3,
    vertices: Interval = (4, 11),
    width: Interval = (12 / 256, 39 / 256),
    finer: Any = 1,
) -> Visible:
    """(fewest, most) visible cells of any draw; the arguments are those of `mask`.

    Strokes may hide every cell. A box always hides the cells of the smallest box. Strokes without a
    box hide at least one cell, that of a first point. ConfigError for arguments that are out of
    range, or with which nothing may be hidden.
    """
    refine_grid(grid, finer)
    _check_box(side, shrink, margin)
    _checked_strokes(loops, vertices, width)
    cells = grid[0] * grid[1]
    box_least = (
        math.prod(hidden_cells_of_side(side - shrink, n, finer)[0] for n in grid) if side else 0
    )
    if side - shrink >= 1 - ROUNDING:  # a box as large as the image, wherever its edges round to
        box_least = cells
    box_most = math.prod(hidden_cells_of_side(side, n, finer)[1] for n in grid) if side else 0
    if not (box_least or loops):
        raise ConfigError(
            f"The freeform task may hide nothing of {grid[0]}x{grid[1]} cells with loops={loops} "
            f"and a box of {side - shrink:.3f} of the side; use a larger `side`, or strokes."
        )
    return leaves_some((0 if loops else cells - box_most, cells - max(box_least, 1)), grid)


def mask(
    rng: Rng,
    batch: int,
    grid: tuple[int, int],
    *,
    side: Number = 128 / 256,
    shrink: Number = 20 / 256,
    margin: Number = 20 / 256,
    loops: Number = 3,
    vertices: Interval = (4, 11),
    width: Interval = (12 / 256, 39 / 256),
    finer: Any = 1,
) -> Mask:
    """[batch, h, w]: each example hides other cells. finer: see lib/masks.py.

    All lengths are fractions of the image's side.
    side: of the largest box; 0: no box. shrink: how much shorter each side of a box may be.
    margin: between box and edge of the image. loops: largest number of strokes; 0: none, else at
    least 1. vertices: (fewest, most) lines of a stroke. width: (least, most) of a brush.
    """
    visible(grid, side=side, shrink=shrink, margin=margin, finer=finer,
            loops=loops, vertices=vertices, width=width)  # fmt: skip
    strokes = _checked_strokes(loops, vertices, width)
    fine_grid, (box_key, strokes_key) = refine_grid(grid, finer), jax.random.split(rng)
    hidden = jnp.zeros((batch, *fine_grid), bool)
    if side:
        hidden |= draw_boxes(*_box(box_key, batch, side, shrink, margin), fine_grid)
    if strokes.loops:
        hidden |= draw_strokes(*_strokes(strokes_key, batch, **strokes._asdict()), fine_grid)
    return hidden


def _box(
    rng: Rng, batch: int, side: Number, shrink: Number, margin: Number
) -> tuple[Float[Array, "B 2"], Float[Array, "B 2"]]:
    """(upper left, lower right) corners of random boxes, as (row, column)."""
    position, shrinkage = jax.random.uniform(rng, (2, batch, 2))
    high = margin + side + position * (1 - 2 * margin - side)
    return high - side + shrinkage * shrink, high


def _strokes(
    rng: Rng, batch: int, loops: int, vertices: tuple[int, int], width: tuple[float, float]
) -> tuple[Float[Array, "B loops V 2"], Float[Array, "B loops"]]:
    """(points of random strokes, their widths); the width is 0 for strokes that are not drawn.

    Before the flips, lines go to the right, alternately up and down. The last points of a stroke
    with fewer lines are equal.
    """
    shape, line = (batch, loops, vertices[1]), jnp.arange(vertices[1])
    image_key, stroke_key, angle_key, length_key = jax.random.split(rng, 4)
    start, turn, lines, brush = jnp.split(  # one draw for all: each draw adds compile time
        jax.random.uniform(stroke_key, (batch, loops, 6)), (2, 4, 5), axis=2
    )
    low, high = ANGLE - MAX_TURN * turn[..., :1], ANGLE + MAX_TURN * turn[..., 1:]
    angle = low + (high - low) * jax.random.uniform(angle_key, shape)
    length = LENGTH_MEAN + LENGTH_STD * jax.random.normal(length_key, shape)
    length = jnp.clip(length, 0.0, 2 * LENGTH_MEAN)
    length = jnp.where(line < _integer(lines, *vertices), length, 0.0)
    up = jnp.where(line % 2 == 0, 1.0, -1.0)
    vectors = length[..., None] * jnp.stack([-up * jnp.sin(angle), jnp.cos(angle)], axis=-1)
    flips, count = jnp.split(jax.random.uniform(image_key, (batch, 1, 3)), (2,), axis=2)
    points = _polyline(start, vectors)
    points = jnp.where(flips[:, :, None] < 0.5, 1 - points, points)
    drawn = jnp.arange(loops) < _integer(count[..., 0], 1, loops)
    return points, jnp.where(drawn, width[0] + (width[1] - width[0]) * brush[..., 0], 0.0)


def _integer(uniform: Float[Array, "*shape"], fewest: int, most: int) -> Float[Array, "*shape"]:
    """Uniform values in [0, 1) -> uniform whole numbers from `fewest` to `most`, as floats."""
    return fewest + jnp.floor(uniform * (most + 1 - fewest))


def _polyline(
    start: Float[Array, "B loops 2"], vectors: Float[Array, "B loops V 2"]
) -> Float[Array, "B loops V+1 2"]:
    """The points reached from `start` by adding one vector after the other, clipped to [0, 1]."""

    def step(point: Array, vector: Array) -> tuple[Array, Array]:
        point = jnp.clip(point + vector, 0.0, 1.0)
        return point, point

    _, points = jax.lax.scan(step, start, jnp.moveaxis(vectors, -2, 0))
    return jnp.concatenate([start[..., None, :], jnp.moveaxis(points, 0, -2)], axis=-2)


def _check_box(side: Number, shrink: Number, margin: Number) -> None:
    if not (side >= 0 and margin >= 0 and side + 2 * margin <= 1 + ROUNDING):
        raise ConfigError(
            f"A box of side={side} with a margin={margin} around it does not fit an image, whose "
            "side is 1."
        )
    if side and not 0 <= shrink < side:
        raise ConfigError(f"A box of side={side} cannot shrink by {shrink}.")


def _checked_strokes(loops: Number, vertices: Interval, width: Interval) -> Strokes:
    if not isinstance(loops, int) or loops < 0:
        raise ConfigError(f"The freeform task draws 0 or more loops, not {loops}.")
    if not (_is_pair(vertices, int) and 1 <= vertices[0] <= vertices[1]):
        raise ConfigError(f"vertices are (fewest, most), at least 1, not {vertices}.")
    if not (_is_pair(width, int | float) and 0 < width[0] <= width[1] <= 1):
        raise ConfigError(f"width is (least, most), above 0 and at most 1, not {width}.")
    return Strokes(loops, (vertices[0], vertices[1]), (width[0], width[1]))


def _is_pair(value: Any, kind: Any) -> bool:
    """Whether a value is a tuple or list of two values of a type."""
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    return is_pair and all(isinstance(part, kind) for part in value)
