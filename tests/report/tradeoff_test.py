"""The Pareto front is correct, labels do not overlap, axes fit the range of the values."""

import itertools

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from l2l_jax.report import labels, tradeoff
from l2l_jax.report.collect import collect
from l2l_jax.report.drawings import STYLE
from l2l_jax.report.groups import grouped
from l2l_jax.report.model_rows import rows
from tests.report.runs import EVALUATORS, cell, figures, make, phase

FIGURES = figures(*EVALUATORS)


def test_the_front():
    """Small x and large y are good: 1 is beaten by 0, 3 by 2 in y at the same x, 4 ends it."""
    points = [(1.0, 5.0), (2.0, 4.0), (3.0, 8.0), (3.0, 7.0), (9.0, 9.0)]
    assert tradeoff.front(points, "down", "up") == [0, 2, 4]
    assert tradeoff.front(points, "up", "down") == [1, 3, 4], "the other corner"
    assert tradeoff.front([(1.0, 1.0), (1.0, 1.0)], "down", "up") == [0, 1], "equals do not beat"
    assert tradeoff.front([], "down", "up") == []


def test_the_front_against_its_definition():
    rng = np.random.default_rng(0)
    points = [tuple(p) for p in rng.integers(0, 8, (60, 2)).tolist()]
    found = tradeoff.front(points, "down", "up")
    for at, (x, y) in enumerate(points):
        beaten = any((a <= x and b > y) or (a < x and b >= y) for a, b in points)
        assert (at in found) != beaten


@pytest.fixture
def found(tmp_path):
    """Rows of three alphas with two seeds each, and an original."""
    return rows_of(tmp_path)


def rows_of(folder, more=None):
    records = []
    for at, alpha in enumerate((0.1, 0.25, 1.0)):
        for seed in (0, 1):
            tasks = (more or {}) | {
                "original": {"retain": cell(3.0, 20.0), "forget": cell(4.0, 19.0)},
                "unlearned": {
                    "retain": cell(3.1 + at + seed / 10, 19.0 - at),
                    "forget": cell(40.0 * (at + 1) + seed, 9.0 - 4 * at),
                },
            }
            phases = {"unlearn": phase("max_loss", alpha=alpha)}
            records.append(collect(make(folder / f"{alpha}-{seed}", seed, phases, tasks)))
    return rows(grouped(records), "center")


def boxes(figure):
    canvas = FigureCanvasAgg(figure)
    with rc_context(STYLE):
        canvas.draw()
    texts = figure.axes[0].texts
    return {text.get_text(): Text.get_window_extent(text, canvas.get_renderer()) for text in texts}


def test_labels_name_the_line_once_and_lie_apart(found):
    extents = boxes(tradeoff.draw(found, FIGURES["fid"]))
    assert set(extents) == {"original", "max_loss, alpha 0.1", "0.25", "1"}, "no front"
    assert not any(a.overlaps(b) for a, b in itertools.combinations(extents.values(), 2))


def test_the_front_is_closest_to_the_retrained_model(tmp_path):
    """Forget FID 40, 80 and 120 with 84 retrained: the first costs least, the second is closest."""
    more = {"retrained": {"retain": cell(3.2, 19.0), "forget": cell(84.0, 8.0)}}
    table = rows_of(tmp_path, more)
    figure = tradeoff.draw(table, FIGURES["fid"])
    names = set(boxes(figure))
    assert names == {
        "original", "retrained", "max_loss, alpha 0.1", "0.25", "1 †", "Pareto front",
        "over-forgotten",
    }  # fmt: skip
    points = [point for line in tradeoff._lines(table, FIGURES["fid"]) for point in line]
    front = tradeoff._front_points(points, FIGURES["fid"])
    assert [point.label for point in front] == ["max_loss, alpha 0.1", "0.25"]
    assert "closest to retrained is best" in figure.axes[0].get_ylabel()


def test_labels_of_a_crowd_lie_apart():
    with rc_context(STYLE):
        figure = Figure(figsize=(9.2, 5.4), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        crowd = [(0.5 + x / 50, 0.5 + y / 40) for x in range(4) for y in range(4)]
        wanted = [labels.Label(f"method {at}", point, "black") for at, point in enumerate(crowd)]
        labels.place(axes, wanted, [(point, point) for point in crowd])
    placed = list(boxes(figure).values())
    assert len(placed) == 16
    assert not any(a.overlaps(b) for a, b in itertools.combinations(placed, 2))


def test_labels_stay_inside(found):
    figure = tradeoff.draw(found, FIGURES["psnr"])
    extents, frame = boxes(figure), figure.axes[0].get_window_extent()
    for text, box in extents.items():
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1, text  # noqa: PT018


def test_an_axis_is_logarithmic_where_the_range_asks_for_it(found):
    axes = tradeoff.draw(found, FIGURES["fid"]).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log"), "3 to 5, and 4 to 120"
    axes = tradeoff.draw(found, FIGURES["psnr"]).axes[0]
    assert axes.get_yscale() == "linear", "decibels are logarithms already, 19 to 1"


@pytest.mark.parametrize(("fid", "label"), [(30.0, "retrained \N{RIGHTWARDS ARROW} 30"), (6.0, "")])
def test_a_retrained_model_far_off_is_at_the_edge(found, tmp_path, fid, label):
    """The others span 3 to 5.2; their order would be lost on an axis up to 30."""
    tasks = {"retrained": {"retain": cell(fid, 10.0), "forget": cell(90.0, 9.0)}}
    config = {"pretrain": phase("pretrain")}
    records = [run for row in found if row.group for run in row.group.runs]
    records.append(collect(make(tmp_path / "again", 0, config, tasks)))
    figure = tradeoff.draw(rows(grouped(records), "center"), FIGURES["fid"])
    low, high = figure.axes[0].get_xlim()
    assert high < 8
    (text,) = [text for text in boxes(figure) if text.startswith("retrained")]
    assert text == (label or "retrained")
    drawn = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    marks = np.concatenate([each.get_offsets() for each in drawn])
    assert low <= marks[:, 0].min() <= marks[:, 0].max() <= high


@pytest.mark.slow
def test_a_drawing_is_the_same_every_time(found):
    assert tradeoff.drawing(found, FIGURES["fid"]).startswith("<svg")
    assert tradeoff.drawing(found, FIGURES["fid"]) == tradeoff.drawing(found, FIGURES["fid"])
    assert tradeoff.drawing(found[:1], FIGURES["fid"]) == "", "one point is no plot"
