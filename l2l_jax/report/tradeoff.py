"""Plots of one figure, retain side against forget side: each group of runs is a point."""

import dataclasses
import io
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from l2l_jax.report import labels, reference
from l2l_jax.report.drawings import STYLE, finite, short, svg
from l2l_jax.report.groups import Group, series, written
from l2l_jax.report.metrics import NEAR, goal
from l2l_jax.report.model_rows import Row

# The colours of Okabe and Ito differ in every common kind of colour blindness; the shapes do, too
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#B8860B", "#7F3C8D", "#5F6B6D")
MARKERS = ("o", "s", "^", "D", "v", "p", "h", "<", ">")
BASELINES = {"original": ("#0f172a", "*"), "retrained": ("#0f172a", "P")}
FRONT_COLOUR, FRONT_LABEL_COLOUR = "#fde68a", "#92400e"
OVER_COLOUR, OVER_LABEL_COLOUR = "#fee2e2", "#b91c1c"
MAX_LINEAR_RANGE = 10  # largest / smallest value; beyond it an axis is logarithmic
MIN_LOGARITHMIC = 1e-30  # smallest value on a logarithmic axis
EDGE_MARGIN = 0.015  # fraction of an axis, from its end to a point that lies outside
BETTER = {"up": "higher is better", "down": "lower is better", "": "no direction is good",
          NEAR: "closest to retrained is best"}  # fmt: skip
DECIBEL = "dB"  # already logarithmic, so its axis is linear


@dataclasses.dataclass(frozen=True)
class Point:
    """A model on the plot: (mean, deviation or 0) of the retain side as x, of the forget as y."""

    label: str
    x: tuple[float, float]
    y: tuple[float, float]
    colour: str
    marker: str
    baseline: str  # "original", "retrained", or "" for an unlearned model
    distance: float | None = None  # of an unlearned model, on the forget side, to the retrained one
    over: bool = False  # whether it is over-forgotten

    @property
    def at(self) -> tuple[float, float]:
        """Both means."""
        return self.x[0], self.y[0]


def front(points: Sequence[tuple[float, float]], x_goal: str, y_goal: str) -> list[int]:
    """Indices of the points on the Pareto front, in order of x.

    No other point is at least as good as such a point in both coordinates and better in one.
    """
    signs = [1 if good == "up" else -1 for good in (x_goal, y_goal)]
    scores = [tuple(s * v for s, v in zip(signs, point, strict=True)) for point in points]

    def dominated(one: tuple[float, ...]) -> bool:
        return any(a[0] >= one[0] and a[1] >= one[1] and a != one for a in scores)

    best = [at for at, one in enumerate(scores) if not dominated(one)]
    return sorted(best, key=lambda at: points[at])


def draw(rows: Sequence[Row], described: Mapping[str, Any]) -> Figure | None:
    """The plot of a figure (an entry of results["figures"]).

    None if fewer than two models have it on both sides.
    """
    name = described["name"]
    rows = [row for row in rows if all(_finite(row, (side, name)) for side in ("retain", "forget"))]
    lines = _lines(rows, described)
    points = [point for line in lines for point in line]
    if len(points) < 2:
        return None
    aims = [row.aim[column] for row in rows if (column := ("forget", name)) in row.aim]
    aim = statistics.fmean(aims) if aims else None
    with rc_context(STYLE):
        figure = Figure(figsize=(9.2, 5.4), layout="constrained")
        axes = figure.subplots()
        for side, axis in (("retain", "x"), ("forget", "y")):
            spanned = [getattr(point, axis) for point in _spanned(points, axis)]
            _scale(axes, axis, spanned, described["unit"])
            better = BETTER[goal(side, described, aim is not None)]
            getattr(axes, f"set_{axis}label")(f"{side} {_title(described)}: {better}")
        lines = [[_pinned(axes, point) for point in line] for line in lines]
        points = [point for line in lines for point in line]
        if aim is not None:
            _draw_aim(axes, aim, [point for point in points if point.baseline == "original"])
        front_points = _front_points(points, described)
        _draw_front(axes, front_points)
        for line in lines:
            _draw_line(axes, line)
        wanted = [labels.Label(_marked(p), p.at, p.colour, bool(p.baseline)) for p in points]
        labels.place(axes, [*wanted, *_front_label(axes, front_points)], _strokes(lines))
    return figure


def _finite(row: Row, column: tuple[str, str]) -> bool:
    """Whether a row has values in a column, and all of them can be drawn."""
    return bool(row.of(column)) and all(map(finite, row.of(column)))


def png(figure: Figure) -> bytes:
    """The plot as a PNG file on white."""
    buffer = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(
            buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None}
        )
    return buffer.getvalue()


def drawing(rows: Sequence[Row], described: Mapping[str, Any]) -> str:
    """The plot as SVG text; "" if `draw` returns none."""
    figure = draw(rows, described)
    if figure is None:
        return ""
    with rc_context(STYLE):
        return svg(figure)


def _lines(rows: Sequence[Row], described: Mapping[str, Any]) -> list[list[Point]]:
    """Points to join by a line, one list for each series; a baseline is a list of one point."""
    lines = []
    for row in rows:
        if row.group is None:
            colour, marker = BASELINES[row.kind]
            lines.append([_point(row, described, row.label, colour, marker, row.kind)])
    by_group = {row.label: row for row in rows if row.group is not None}
    groups = [row.group for row in by_group.values() if row.group is not None]
    for at, (key, members) in enumerate(series(groups)):
        style = COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]
        lines.append(
            [
                _point(by_group[group.label], described, _label(group, key, first), *style, "")
                for group, first in zip(members, [True] + [False] * len(members), strict=False)
            ]
        )
    return lines


def _point(
    row: Row, described: Mapping[str, Any], label: str, colour: str, marker: str, baseline: str
) -> Point:
    """The point of a row that has values on both sides."""
    x, y = (
        (statistics.fmean(row.of(column)), row.deviation(column) or 0.0)
        for column in ((side, described["name"]) for side in ("retain", "forget"))
    )
    column = "forget", described["name"]
    over = row.group is not None and row.over(described)
    return Point(label, x, y, colour, marker, baseline, row.distance(column), over)


def _label(group: Group, key: str, first: bool) -> str:
    """The whole label at the first point of a line, the value that changes at the others."""
    return group.label if first or not key else written(group.settings[key])


def _marked(point: Point) -> str:
    return short(point.label) + (f" {reference.MARK}" if point.over else "")


def _title(described: Mapping[str, Any]) -> str:
    title, unit = short(described["title"]), short(described["unit"])
    return f"{title} ({unit})" if unit else title


def _spanned(points: Sequence[Point], axis: str) -> list[Point]:
    """The points that an axis ("x" or "y") must cover.

    All but a retrained model that is further from the others than the length of the axis: with it,
    the others would be too close together to read.
    """
    others = [getattr(point, axis)[0] for point in points if point.baseline != "retrained"]
    low, high = min(others, default=0.0), max(others, default=0.0)
    length = high - low or np.inf
    return [
        point
        for point in points
        if point.baseline != "retrained" or low - length <= getattr(point, axis)[0] <= high + length
    ]


def _pinned(axes: Axes, point: Point) -> Point:
    """A point outside of the plot is moved to its edge, and the label states the value."""
    near, far = EDGE_MARGIN, 1 - EDGE_MARGIN
    corners = axes.transAxes.transform([(near, near), (far, far)])
    ends = axes.transData.inverted().transform(corners)
    for name, (low, high), before, after in (
        ("x", ends[:, 0], "\N{LEFTWARDS ARROW}", "\N{RIGHTWARDS ARROW}"),
        ("y", ends[:, 1], "\N{DOWNWARDS ARROW}", "\N{UPWARDS ARROW}"),
    ):
        value, (least, most) = getattr(point, name)[0], getattr(axes, f"get_{name}lim")()
        if not least <= value <= most:
            label = f"{point.label} {before if value < least else after} {value:,.3g}"
            edge = (float(low if value < least else high), 0.0)
            point = dataclasses.replace(point, **{name: edge}, label=label)
    return point


def _scale(axes: Axes, name: str, values: Sequence[tuple[float, float]], unit: str) -> None:
    """Sets the limits of an axis ("x" or "y"); over a large range it becomes logarithmic.

    values: (mean, deviation) of the points that it covers.
    """
    low, high = min(v - d for v, d in values), max(v + d for v, d in values)
    least = min(v for v, _ in values)
    limits = getattr(axes, f"set_{name}lim")
    if unit != DECIBEL and least > MIN_LOGARITHMIC and high / least > MAX_LINEAR_RANGE:
        getattr(axes, f"set_{name}scale")("log", nonpositive="clip")
        low = max(low, least / 2)
        room = (high / low) ** 0.08
        limits(low / room, high * room)
        decades = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
        steps = (1, 2, 5) if high / low < 1e3 else (1,)
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(FixedLocator([s * 10.0**d for d in decades for s in steps]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_locator(NullLocator())
    else:
        room = 0.08 * (high - low or 1.0)
        limits(low - room, high + room)


def _front_points(points: Sequence[Point], described: Mapping[str, Any]) -> list[Point]:
    """The unlearned models on the Pareto front; none without a retrained model.

    On the forget side the distance to the retrained model counts.
    """
    unlearned = [point for point in points if not point.baseline]
    scores = [(p.x[0], p.distance) for p in unlearned if p.distance is not None]
    if len(scores) < len(unlearned):
        return []
    best = front(scores, goal("retain", described, reference=True), "down")
    return [unlearned[at] for at in best]


def _draw_aim(axes: Axes, aim: float, originals: Sequence[Point]) -> None:
    """A broken line at the retrained model's forget figure; the area beyond it is pale red."""
    low, high = axes.get_ylim()
    if not low < aim < high or not originals:
        return
    beyond = (aim, high) if originals[0].y[0] < aim else (low, aim)
    axes.axhspan(*beyond, color=OVER_COLOUR, linewidth=0, zorder=0)
    axes.axhline(aim, color=BASELINES["retrained"][0], linewidth=1, linestyle="--", zorder=1)
    top = beyond[1] == high
    axes.annotate(
        reference.OVER, (1, beyond[1] if top else beyond[0]), xycoords=("axes fraction", "data"),
        xytext=(-4, -4 if top else 4), textcoords="offset points", ha="right",
        va="top" if top else "bottom", fontsize=9, color=OVER_LABEL_COLOUR,
    )  # fmt: skip
    axes.set_ylim(low, high)


def _draw_front(axes: Axes, best: Sequence[Point]) -> None:
    """A broad pale band behind the points of the front."""
    x, y = [p.x[0] for p in best], [p.y[0] for p in best]
    axes.plot(x, y, color=FRONT_COLOUR, linewidth=9, solid_capstyle="round", zorder=1)
    axes.scatter(x, y, s=320, color=FRONT_COLOUR, linewidths=0, zorder=1)


def _front_label(axes: Axes, best: Sequence[Point]) -> list[labels.Label]:
    """The label of the front, at the middle of its longest segment; none if it has no points."""
    if not best:
        return []
    pixels = axes.transData.transform([point.at for point in best])
    a, b = max(pairwise(pixels), key=lambda ends: np.hypot(*(ends[0] - ends[1])),
               default=(pixels[0], pixels[0]))  # fmt: skip
    x, y = axes.transData.inverted().transform((a + b) / 2)
    return [labels.Label("Pareto front", (float(x), float(y)), FRONT_LABEL_COLOUR, True)]


def _draw_line(axes: Axes, line: Sequence[Point]) -> None:
    """One series: its points with error bars, joined by a thin line."""
    x, y = [p.x[0] for p in line], [p.y[0] for p in line]
    axes.plot(x, y, color=line[0].colour, linewidth=1, alpha=0.6, zorder=2)
    for p in line:
        axes.errorbar(*((v,) for v in (p.x[0], p.y[0])), xerr=p.x[1] or None, yerr=p.y[1] or None,
                      color=p.colour, elinewidth=1, capsize=2, fmt="none", zorder=3)  # fmt: skip
        axes.scatter([p.x[0]], [p.y[0]], s=150 if p.baseline else 48, marker=p.marker,
                     color=p.colour, edgecolors="white", linewidths=0.8, zorder=4)  # fmt: skip


def _strokes(lines: Sequence[Sequence[Point]]) -> list[tuple[tuple[float, float], ...]]:
    """The strokes that labels should not cover, as pairs of ends."""
    strokes = []
    for line in lines:
        strokes += [((a.x[0], a.y[0]), (b.x[0], b.y[0])) for a, b in pairwise(line)]
        for p in line:
            (x, dx), (y, dy) = p.x, p.y
            strokes += [((x - dx, y), (x + dx, y)), ((x, y - dy), (x, y + dy))]
    return strokes
