"""Free-form holes: the released distribution, drawn as Pillow does, within the stated bounds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageDraw

from l2l_jax.lib import masks, pixels
from l2l_jax.lib.errors import ConfigError
from l2l_jax.tasks import freeform

BOX, STROKES = dict(loops=0), dict(side=0.0)  # one without the other


@functools.cache
def draw(size, batch, seed=0, **args):
    """Masks on size x size cells, or on the grid `size`."""
    grid = size if isinstance(size, tuple) else (size, size)
    made = jax.jit(functools.partial(freeform.mask, batch=batch, grid=grid, **args))
    return np.asarray(made(jax.random.key(seed)))


@functools.cache
def strokes():
    """(points, widths) of the default strokes, as numpy."""
    args = dict(loops=3, vertices=(4, 11), width=(12 / 256, 39 / 256))
    made = jax.jit(functools.partial(freeform._strokes, batch=2000, **args))
    return jax.device_get(made(jax.random.key(3)))


# The box -----------------------------------------------------------------------------------------


def test_boxes_are_the_released_ones():
    """At 256: sides of 108 to 128, margins of 20, shrunk from above and from the left only."""
    drawn = draw(256, 400, **BOX)
    for axis in (1, 2):  # rows, columns
        inside = drawn.any(axis=3 - axis)
        length, first = inside.sum(axis=1), inside.argmax(axis=1)
        last = 256 - inside[:, ::-1].argmax(axis=1)
        assert (last - first == length).all(), "in one piece"
        assert 107 <= length.min() < 111
        assert 126 <= length.max() <= 129
        assert abs(length.mean() - 118) < 1
        assert 20 <= first.min() < 30
        assert 148 <= last.min() < 152
        assert 231 < last.max() <= 236
        assert abs(last.mean() - 192) < 4
        assert abs(np.corrcoef(length, last)[0, 1]) < 0.2, "where it ends says nothing of its size"
        assert np.corrcoef(length, first)[0, 1] < -0.1, "where it begins does"
    sides = drawn.any(axis=2).sum(axis=1), drawn.any(axis=1).sum(axis=1)
    assert (drawn.sum(axis=(1, 2)) == sides[0] * sides[1]).all(), "a full rectangle"
    assert abs(np.corrcoef(*sides)[0, 1]) < 0.2, "either side has its own size"


def test_a_box_without_shrink_or_room_is_always_the_same():
    drawn = draw(16, 20, side=0.5, shrink=0.0, margin=0.25, **BOX)
    want = np.zeros((16, 16), bool)
    want[4:12, 4:12] = True
    assert (drawn == want).all()


# The brush ---------------------------------------------------------------------------------------


def test_strokes_are_the_released_ones():
    """How many, how wide, how many lines, how long, where to."""
    points, widths = strokes()
    assert (points >= 0).all()
    assert (points <= 1).all()
    count = (widths > 0).sum(axis=1)
    shares = np.bincount(count, minlength=4) / len(count)
    assert np.allclose(shares, [0, 1 / 3, 1 / 3, 1 / 3], atol=0.05)
    drawn = widths[widths > 0] * 256
    assert 12 <= drawn.min() < 13
    assert 38 < drawn.max() <= 39
    assert abs(drawn.mean() - 25.5) < 0.5
    ways = np.diff(points, axis=2) * 256
    length = np.hypot(*np.moveaxis(ways, -1, 0))
    lines = (length > 0).sum(axis=2)
    assert lines.max() == 11
    assert abs(lines.mean() - 7.5) < 0.2, "but for those of no length at an edge"
    assert length.max() <= 2 * 45.26
    free = ((points[:, :, 1:] > 0) & (points[:, :, 1:] < 1)).all(axis=3) & (length > 0)
    assert abs(np.median(length[free]) - 45.25) < 4, "longer ones end at an edge more often"
    angle = np.degrees(np.arctan2(abs(ways[..., 0]), abs(ways[..., 1])))[free]
    assert 47.9 < angle.min() < 50
    assert 70 < angle.mean() < 73
    start = points[:, :, 0]
    assert np.allclose(start.mean(axis=(0, 1)), 0.5, atol=0.02)
    assert np.allclose(start.std(axis=(0, 1)), 12**-0.5, atol=0.02)


def test_strokes_zigzag():
    """Each line goes up where the one before went down, but for those that an edge cuts off."""
    ways = np.diff(strokes()[0], axis=2)[..., 0]
    signs = np.sign(ways)
    first = signs[:, :, :1] * np.where(np.arange(11) % 2, -1, 1)
    assert ((signs == first) | (signs == 0) | (first == 0)).all()


def test_flips_happen():
    """Half of the images to either side, half of them first up: the released ones never turn."""
    ways = np.diff(strokes()[0], axis=2)
    left = (ways[..., 1].sum(axis=2) < 0).mean(axis=1)  # of an image: all of its strokes together
    down = (ways[:, :, 0, 0] > 0).mean(axis=1)
    for turned in (left, down):
        assert abs(turned.mean() - 0.5) < 0.05
        assert np.isin(turned, (0, 1)).mean() > 0.85, "the strokes of an image turn together"
    assert abs(np.corrcoef(left, down)[0, 1]) < 0.1, "each way by itself"


POLYLINE = np.array([(30, 40), (110, 75), (60, 120), (200, 130), (190, 240), (190, 240)])


@pytest.mark.parametrize("width", [12, 25, 39])
@pytest.mark.parametrize(("scale", "alike"), [(1, 0.93), (8, 0.985)])
def test_a_stroke_is_what_pillow_draws(scale, alike, width):
    """As released, with its rounding to pixels; and drawn larger, with less of it."""
    picture = Image.new("L", (256 * scale, 256 * scale))
    pen, round_end = ImageDraw.Draw(picture), width * scale // 2
    places = [(int(x) * scale, int(y) * scale) for y, x in POLYLINE]
    pen.line(places, fill=1, width=width * scale)
    for x, y in places:
        pen.ellipse((x - round_end, y - round_end, x + round_end, y + round_end), fill=1)
    want = np.asarray(picture)[scale // 2 :: scale, scale // 2 :: scale] > 0
    middle = 0.5 / scale  # of the pixel that Pillow names by its corner
    points = jnp.array((POLYLINE + middle) / 256, jnp.float32)[None, None]
    made = np.asarray(masks.draw_strokes(points, jnp.array([[width / 256]]), (256, 256))[0])
    assert (want & made).sum() / (want | made).sum() > alike


def test_strokes_are_put_together_and_those_of_no_width_left_out():
    points, widths = (x[:8] for x in strokes())
    made = np.asarray(masks.draw_strokes(points, widths, (40, 40)))
    at = (np.arange(40) + 0.5) / 40
    share = np.linspace(0, 1, 200)[:, None, None]
    for example, brushes, hidden in zip(points, widths, made, strict=True):
        want = np.zeros((40, 40), bool)
        for stroke, width in zip(example, brushes, strict=True):  # discs all along its lines
            y, x = np.moveaxis(stroke[:-1] + share * np.diff(stroke, axis=0), -1, 0).reshape(2, -1)
            near = (at[:, None, None] - y) ** 2 + (at[:, None] - x) ** 2 <= (width / 2) ** 2
            want |= near.any(axis=2) & (width > 0)
        assert (want != hidden).mean() < 0.002


def test_a_thin_brush_leaves_no_gaps():
    """Every cell that its middle passes through is hidden, so something always is."""
    points = strokes()[0][:50]
    made = np.asarray(masks.draw_strokes(points, jnp.full((50, 3), 1e-6), (6, 6)))
    share = np.linspace(0, 1, 50)[:, None, None, None]
    for example, hidden in zip(points, made, strict=True):
        along = example[:, :-1] + share * np.diff(example, axis=1)
        row, column = np.moveaxis(np.minimum((along * 6).astype(int), 5), -1, 0)
        assert hidden[row, column].all()
        assert not hidden.all()


# Both --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_as_much_is_hidden_as_in_the_released_masks():
    """Their means over 2000 masks at 256: boxes 0.213, strokes 0.150, both 0.326."""
    box, brushed, both = (draw(256, 100, **args) for args in (BOX, STROKES, {}))
    assert abs(box.mean() - 0.213) < 0.006
    assert abs(brushed.mean() - 0.150) < 0.025
    assert abs(both.mean() - 0.326) < 0.02
    assert 0.17 < both.mean(axis=(1, 2)).min() < both.mean(axis=(1, 2)).max() < 0.7
    assert np.array_equal(both, box | brushed)


@pytest.mark.slow
def test_masks_are_a_function_of_the_key_and_differ_between_examples():
    made, other = draw(32, 40), draw(32, 40, seed=1)
    assert np.array_equal(made, draw.__wrapped__(32, 40)), "drawn again"
    assert len(np.unique(np.concatenate([made, other]).reshape(80, -1), axis=0)) == 80


@pytest.mark.slow
def test_shapes_do_not_depend_on_the_grid():
    """Every third cell of a grid three times as fine has its centre at the same place."""
    coarse, fine = draw(32, 30), draw(32, 30, finer=3)
    assert fine.shape == (30, 96, 96)
    assert (coarse != fine[:, 1::3, 1::3]).mean() < 1e-4, "but for a centre on an edge"


GRIDS = [((4, 4), 1), ((4, 4), 2), ((3, 5), 1), ((8, 8), 3), ((14, 14), 16), ((37, 11), 1)]
WAYS = [BOX, dict(**BOX, side=0.9, margin=0.05, shrink=0.1), dict(**BOX, shrink=0.0, margin=0.0),
        dict(**STROKES, loops=1, vertices=(1, 1), width=(1e-6, 1e-6)), dict()]  # fmt: skip


@pytest.mark.parametrize("args", WAYS, ids=str)
@pytest.mark.parametrize(("grid", "finer"), GRIDS)
@pytest.mark.slow
def test_no_draw_leaves_more_or_less_than_visible_states(grid, finer, args):
    args = dict(args, finer=finer)
    fewest, most = freeform.visible(grid, **args)
    assert 0 <= fewest <= most < grid[0] * grid[1], "something is always hidden"
    shown = (~np.asarray(pixels.coarsen_mask(draw(grid, 300, **args), grid))).sum(axis=(1, 2))
    assert fewest <= shown.min() <= shown.max() <= most
    if not args.get("loops", 3):  # and says it tightly, give or take a row and a column
        loose = sum(grid) + 1
        assert shown.min() - fewest <= loose
        assert most - shown.max() <= loose


@pytest.mark.parametrize(("length", "cells", "finer", "want"), [
    (0.5, 4, 1, (1, 3)), (0.3, 4, 1, (1, 2)), (0.2, 4, 1, (0, 1)), (0.2, 4, 3, (1, 2)),
    (0.45, 4, 4, (2, 3)), (1.0, 4, 1, (3, 4)), (0.99, 4, 8, (4, 4)),
])  # fmt: skip
def test_cells_that_a_stretch_touches(length, cells, finer, want):
    assert masks.hidden_cells_of_side(length, cells, finer) == want
    low = np.random.default_rng(0).uniform(0, 1 - length, 2000)[:, None]
    at = (np.arange(cells * finer) + 0.5) / (cells * finer)
    hidden = ((low <= at) & (at < low + length)).reshape(-1, cells, finer).any(axis=2).sum(axis=1)
    assert want[0] <= hidden.min()
    assert hidden.max() <= want[1]


@pytest.mark.parametrize(("args", "word"), [
    (dict(side=0.9), "does not fit"), (dict(side=-0.1), "does not fit"),
    (dict(margin=0.3), "does not fit"), (dict(margin=-0.1), "does not fit"),
    (dict(shrink=0.5), "shrink"), (dict(shrink=-0.1), "shrink"),
    (dict(loops=-1), "loops"), (dict(loops=0, side=0.0), "hide nothing"),
    (dict(loops=0, side=0.2, shrink=0.0), "hide nothing"),
    (dict(vertices=(0, 3)), "vertices"), (dict(vertices=(5, 4)), "vertices"),
    (dict(vertices=(5,)), "vertices"), (dict(width=(0.0, 0.1)), "width"),
    (dict(width=(0.2, 0.1)), "width"), (dict(width=(0.2, 1.1)), "width"), (dict(finer=0), "fine"),
    (dict(vertices=7), "vertices"), (dict(vertices=(4.0, 11.0)), "vertices"),
    (dict(width=0.1), "width"), (dict(loops=2.5), "loops"), (dict(finer=2.0), "fine"),
    (dict(margin=float("nan")), "does not fit"),
])  # fmt: skip
def test_impossible_arguments(args, word):
    with pytest.raises(ConfigError, match=word):
        freeform.visible((4, 4), **args)
    with pytest.raises(ConfigError, match=word):
        freeform.mask(jax.random.key(0), 2, (4, 4), **args)
