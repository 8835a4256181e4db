"""In-painting of free-form holes, as Palette is trained: a random box and strokes of a brush.

Strokes: Yu et al., "Free-form image inpainting with gated convolution", ICCV 2019. The numbers are
those of the public PyTorch code of Palette (mask_mode "hybrid": 256 x 256 pixels), as shares of the
side of the image. So the same key draws the same shapes on a grid of any size. The code differs
from its own comments, and here it is the code that counts: a box shrinks at its upper and left
edge, not around its centre, and a stroke of n "vertices" has n lines, one point more.

Departures. The released flips of the strokes are computed and thrown away; here they happen. Places
and sizes are not rounded to pixels. On coarse grids a brush is at least as wide as the diagonal of
a cell (with the default widths: below 31 cells), so that no stroke falls between the cells.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.masks import ROUNDING, boxed, brushed, refined, touched
from l2l_jax.types import Array

LENGTH, DEVIATION = math.sqrt(2) / 8, 22 / 256  # of a line; at most twice the LENGTH
ANGLE, LEAN = 2 * math.pi / 5, 2 * math.pi / 15  # of a line, and how far a stroke may leave it

EXAMPLE = dict(finer=2)


def visible(
    grid: tuple[int, int],
    *,
    side: float = 128 / 256,
    shrink: float = 20 / 256,
    margin: float = 20 / 256,
    loops: int = 3,
    vertices: tuple[int, int] = (4, 11),
    width: tuple[float, float] = (12 / 256, 39 / 256),
    finer: int = 1,
) -> tuple[int, int]:
    """(fewest, most) visible cells: strokes may hide everything; a smallest box is always hidden.

    Of strokes alone only their first point is sure: one cell.
    """
    refined(grid, finer)
    _check_box(side, shrink, margin)
    _check_strokes(loops, vertices, width)
    cells = grid[0] * grid[1]
    least = math.prod(touched(side - shrink, n, finer)[0] for n in grid) if side else 0
    most = math.prod(touched(side, n, finer)[1] for n in grid) if side else 0
    if not (least or loops):
        raise ConfigError(
            f"The freeform task may hide nothing of {grid[0]}x{grid[1]} cells with loops={loops} "
            f"and a box of {side - shrink:.3f} of the side; take a larger `side`, or strokes."
        )
    return 0 if loops else cells - most, cells - max(least, 1)


def mask(
    rng: Array,
    batch: int,
    grid: tuple[int, int],
    *,
    side: float = 128 / 256,
    shrink: float = 20 / 256,
    margin: float = 20 / 256,
    loops: int = 3,
    vertices: tuple[int, int] = (4, 11),
    width: tuple[float, float] = (12 / 256, 39 / 256),
    finer: int = 1,
) -> Array:
    """[batch, h, w] bool, True = hidden; each example its own draw. finer: see lib/masks.py.

    All lengths are shares of the side of the image.
    side: of the largest box; 0: no box. shrink: by how much, at most, either side of it is shorter.
    margin: between box and edge of the image. loops: 1 to so many strokes; 0: none.
    vertices: (fewest, most) lines of a stroke. width: (least, most) of a brush.
    """
    strokes = dict(loops=loops, vertices=vertices, width=width)
    visible(grid, side=side, shrink=shrink, margin=margin, finer=finer, **strokes)
    grid, (box, brush) = refined(grid, finer), jax.random.split(rng)
    hidden = jnp.zeros((batch, *grid), bool)
    if side:
        hidden |= boxed(*_box(box, batch, side, shrink, margin), grid)
    if loops:
        hidden |= brushed(*_strokes(brush, batch, **strokes), grid)
    return hidden


def _box(rng: Array, batch: int, side: float, shrink: float, margin: float) -> tuple[Array, Array]:
    """Its upper left and its lower right corner, [B, 2] each; the second is drawn first."""
    place, size = jax.random.uniform(rng, (2, batch, 2))
    high = margin + side + place * (1 - 2 * margin - side)
    return high - side + size * shrink, high


def _strokes(
    rng: Array, batch: int, loops: int, vertices: tuple[int, int], width: tuple[float, float]
) -> tuple[Array, Array]:
    """[B, loops, V, 2] points and [B, loops] widths, 0 for strokes that are not drawn.

    Lines go right, up and down in turns, before the flips. A stroke of fewer lines stays where it
    ends.
    """
    shape, turn = (batch, loops, vertices[1]), jnp.arange(vertices[1])
    images, strokes, angles, lengths = jax.random.split(rng, 4)
    start, lean, lines, brush = jnp.split(  # few draws: each takes its time to compile
        jax.random.uniform(strokes, (batch, loops, 6)), (2, 4, 5), axis=2
    )
    low, high = ANGLE - LEAN * lean[..., :1], ANGLE + LEAN * lean[..., 1:]
    angle = low + (high - low) * jax.random.uniform(angles, shape)
    length = jnp.clip(LENGTH + DEVIATION * jax.random.normal(lengths, shape), 0.0, 2 * LENGTH)
    length = jnp.where(turn < _whole(lines, *vertices), length, 0.0)
    up = jnp.where(turn % 2 == 0, 1.0, -1.0)
    ways = length[..., None] * jnp.stack([-up * jnp.sin(angle), jnp.cos(angle)], axis=-1)
    flips, count = jnp.split(jax.random.uniform(images, (batch, 1, 3)), (2,), axis=2)
    points = _walk(start, ways)
    points = jnp.where(flips[:, :, None] < 0.5, 1 - points, points)
    drawn = jnp.arange(loops) < _whole(count[..., 0], 1, loops)
    return points, jnp.where(drawn, width[0] + (width[1] - width[0]) * brush[..., 0], 0.0)


def _whole(share: Array, fewest: int, most: int) -> Array:
    """From uniform in [0, 1) to uniform among the whole numbers from `fewest` to `most`."""
    return fewest + jnp.floor(share * (most + 1 - fewest))


def _walk(start: Array, ways: Array) -> Array:
    """[..., 2] and [..., V, 2] -> [..., V + 1, 2]: from there, way after way, within the image."""

    def step(at: Array, way: Array) -> tuple[Array, Array]:
        at = jnp.clip(at + way, 0.0, 1.0)
        return at, at

    _, points = jax.lax.scan(step, start, jnp.moveaxis(ways, -2, 0))
    return jnp.concatenate([start[..., None, :], jnp.moveaxis(points, 0, -2)], axis=-2)


def _check_box(side: float, shrink: float, margin: float) -> None:
    if not (side >= 0 and margin >= 0 and side + 2 * margin <= 1 + ROUNDING):
        raise ConfigError(
            f"A box of side={side} with a margin={margin} around it does not fit an image, whose "
            "side is 1."
        )
    if side and not 0 <= shrink < side:
        raise ConfigError(f"A box of side={side} cannot shrink by {shrink}.")


def _check_strokes(loops: int, vertices: tuple[int, int], width: tuple[float, float]) -> None:
    if not isinstance(loops, int) or loops < 0:
        raise ConfigError(f"The freeform task draws 0 or more loops, not {loops}.")
    if not (_pair(vertices, int) and 1 <= vertices[0] <= vertices[1]):
        raise ConfigError(f"vertices are (fewest, most), at least 1, not {vertices}.")
    if not (_pair(width, int | float) and 0 < width[0] <= width[1] <= 1):
        raise ConfigError(f"width is (least, most), above 0 and at most 1, not {width}.")


def _pair(value: object, kind: Any) -> bool:
    several = isinstance(value, tuple | list) and len(value) == 2
    return several and all(isinstance(part, kind) for part in value)
