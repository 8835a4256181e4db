"""What forgetting costs: each group of runs as a point, retain against forget, in one metric."""

import dataclasses
import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from l2l_jax.report import labels
from l2l_jax.report.figures import STYLE, svg
from l2l_jax.report.groups import Group, series, written
from l2l_jax.report.metrics import describe, goal
from l2l_jax.report.tables import Row

# After Okabe and Ito, told apart with every common kind of colour blindness; and shapes as well
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#B8860B", "#7F3C8D", "#5F6B6D")
MARKERS = ("o", "s", "^", "D", "v", "p", "h", "<", ">")
BASELINES = {"original": ("#0f172a", "*"), "retrained": ("#0f172a", "P")}
FRONT, FRONT_NAME = "#fde68a", "#92400e"
WIDE = 10  # an axis over more than such a range is logarithmic
EDGE = 0.015  # of an axis, between its end and what lies beyond
LONG = 40  # letters of a label, beyond which it is cut
DECIBEL = "dB"  # is a logarithm already


@dataclasses.dataclass(frozen=True)
class Point:
    """A model on the plot: (mean, deviation or 0) on both sides."""

    label: str
    x: tuple[float, float]
    y: tuple[float, float]
    colour: str
    marker: str
    baseline: str  # "original", "retrained", or "" for an unlearned model

    @property
    def at(self) -> tuple[float, float]:
        return self.x[0], self.y[0]


def front(points: Sequence[tuple[float, float]], x_goal: str, y_goal: str) -> list[int]:
    """Which points no other point beats: as good in both and better in one. In order of x."""
    signs = [1 if good == "up" else -1 for good in (x_goal, y_goal)]
    worth = [tuple(s * v for s, v in zip(signs, point, strict=True)) for point in points]

    def beaten(one: tuple[float, ...]) -> bool:
        return any(a[0] >= one[0] and a[1] >= one[1] and a != one for a in worth)

    best = [at for at, one in enumerate(worth) if not beaten(one)]
    return sorted(best, key=lambda at: points[at])


def draw(rows: Sequence[Row], metric: str) -> Figure | None:
    """The plot of a metric; none if fewer than two models have it on both sides."""
    rows = [row for row in rows if all(row.of((side, metric)) for side in ("retain", "forget"))]
    lines = _lines(rows, metric)
    points = [point for line in lines for point in line]
    if len(points) < 2:
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=(9.2, 5.4), layout="constrained")
        axes = figure.subplots()
        for side, name in (("retain", "x"), ("forget", "y")):
            spanned = [getattr(point, name) for point in _near(points, name)]
            _scale(axes, name, spanned, describe(metric)[1])
            better = "lower" if goal(side, metric) == "down" else "higher"
            getattr(axes, f"set_{name}label")(f"{side} {_name(metric)}: {better} is better")
        lines = [[_pinned(axes, point) for point in line] for line in lines]
        points = [point for line in lines for point in line]
        front_points = _best(points, metric)
        _front(axes, front_points)
        for line in lines:
            _line(axes, line)
        wanted = [labels.Label(_short(p.label), p.at, p.colour, bool(p.baseline)) for p in points]
        labels.place(axes, [*wanted, *_front_name(axes, front_points)], _taken(lines))
    return figure


def png(figure: Figure) -> bytes:
    """The plot as a picture on white."""
    buffer = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(
            buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None}
        )
    return buffer.getvalue()


def drawing(rows: Sequence[Row], metric: str) -> str:
    """The plot as SVG text, "" if there is too little for one."""
    figure = draw(rows, metric)
    if figure is None:
        return ""
    with rc_context(STYLE):
        return svg(figure)


def _lines(rows: Sequence[Row], metric: str) -> list[list[Point]]:
    """Points that are joined, baselines each on its own."""
    found = []
    for row in rows:
        if row.group is None:
            colour, marker = BASELINES[row.kind]
            found.append([_point(row, metric, row.label, colour, marker, row.kind)])
    by_group = {row.label: row for row in rows if row.group is not None}
    groups = [row.group for row in by_group.values() if row.group is not None]
    for at, (key, members) in enumerate(series(groups)):
        look = COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]
        found.append(
            [
                _point(by_group[group.label], metric, _label(group, key, first), *look, "")
                for group, first in zip(members, [True] + [False] * len(members), strict=False)
            ]
        )
    return found


def _point(row: Row, metric: str, label: str, colour: str, marker: str, baseline: str) -> Point:
    x, y = (
        (row.mean(c), row.deviation(c) or 0.0) for c in (("retain", metric), ("forget", metric))
    )
    return Point(label, x, y, colour, marker, baseline)


def _label(group: Group, key: str, first: bool) -> str:
    """The whole label at one end of a line, the number alone along it."""
    return group.label if first or not key else written(group.settings[key])


def _short(text: str) -> str:
    return text if len(text) <= LONG else f"{text[: LONG - 1]}\N{HORIZONTAL ELLIPSIS}"


def _name(metric: str) -> str:
    name, unit, _, _ = describe(metric)
    return f"{name} ({unit})" if unit else name


def _near(points: Sequence[Point], name: str) -> list[Point]:
    """Those that an axis spans: all but a retrained model further off than the axis is long.

    A weak one is, and nobody could tell the others apart.
    """
    others = [getattr(point, name)[0] for point in points if point.baseline != "retrained"]
    low, high = min(others, default=0.0), max(others, default=0.0)
    length = high - low or np.inf
    return [
        point
        for point in points
        if point.baseline != "retrained" or low - length <= getattr(point, name)[0] <= high + length
    ]


def _pinned(axes: Axes, point: Point) -> Point:
    """The same just inside the edge of the plot, with its value in words, if it lies outside."""
    corners = axes.transAxes.transform([(EDGE, EDGE), (1 - EDGE, 1 - EDGE)])
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
    """A logarithmic axis with plain numbers where the range asks for one, and some room."""
    low, high = min(v - d for v, d in values), max(v + d for v, d in values)
    least = min(v for v, _ in values)
    limits = getattr(axes, f"set_{name}lim")
    if unit != DECIBEL and least > 0 and high / least > WIDE:
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


def _best(points: Sequence[Point], metric: str) -> list[Point]:
    """The unlearned models that no other one beats."""
    chosen = [point for point in points if not point.baseline]
    goals = goal("retain", metric), goal("forget", metric)
    return [chosen[at] for at in front([point.at for point in chosen], *goals)]


def _front(axes: Axes, best: Sequence[Point]) -> None:
    """A broad pale band behind the points that nothing beats."""
    x, y = [p.x[0] for p in best], [p.y[0] for p in best]
    axes.plot(x, y, color=FRONT, linewidth=9, solid_capstyle="round", zorder=1)
    axes.scatter(x, y, s=320, color=FRONT, linewidths=0, zorder=1)


def _front_name(axes: Axes, best: Sequence[Point]) -> list[labels.Label]:
    """Its name, at the middle of its longest piece."""
    if not best:
        return []
    pixels = axes.transData.transform([point.at for point in best])
    a, b = max(pairwise(pixels), key=lambda ends: np.hypot(*(ends[0] - ends[1])),
               default=(pixels[0], pixels[0]))  # fmt: skip
    x, y = axes.transData.inverted().transform((a + b) / 2)
    return [labels.Label("Pareto front", (float(x), float(y)), FRONT_NAME, True)]


def _line(axes: Axes, line: Sequence[Point]) -> None:
    x, y = [p.x[0] for p in line], [p.y[0] for p in line]
    axes.plot(x, y, color=line[0].colour, linewidth=1, alpha=0.6, zorder=2)
    for p in line:
        axes.errorbar(*((v,) for v in (p.x[0], p.y[0])), xerr=p.x[1] or None, yerr=p.y[1] or None,
                      color=p.colour, elinewidth=1, capsize=2, fmt="none", zorder=3)  # fmt: skip
        axes.scatter([p.x[0]], [p.y[0]], s=150 if p.baseline else 48, marker=p.marker,
                     color=p.colour, edgecolors="white", linewidths=0.8, zorder=4)  # fmt: skip


def _taken(lines: Sequence[Sequence[Point]]) -> list[tuple[tuple[float, float], ...]]:
    """Where labels should not lie: the strokes of the drawing, as pairs of ends."""
    strokes = []
    for line in lines:
        strokes += [((a.x[0], a.y[0]), (b.x[0], b.y[0])) for a, b in pairwise(line)]
        for p in line:
            (x, dx), (y, dy) = p.x, p.y
            strokes += [((x - dx, y), (x + dx, y)), ((x, y - dy), (x, y + dy))]
    return strokes
