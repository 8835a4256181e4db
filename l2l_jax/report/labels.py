"""Labels beside the points of a plot, where they hide least."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text

REACH = (9, 15, 23, 34, 48, 66, 90)  # points between a label and what it names
FAR = 20  # from here on a stroke leads to it
MARK = 7  # pixels around a point that belong to its mark
SAMPLES = 24  # points on a stroke that a label should not hide

Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels
Stroke = tuple[tuple[float, float], ...]  # its two ends, in data coordinates


@dataclasses.dataclass(frozen=True)
class Label:
    """A text and the point it names, in data coordinates."""

    text: str
    at: tuple[float, float]
    colour: str
    bold: bool = False


def place(axes: Axes, wanted: Sequence[Label], strokes: Sequence[Stroke]) -> None:
    """Writes every label near its point, the crowded ones first."""
    figure = axes.figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # lays the figure out; pixels mean something from here on
    to_pixels, scale = axes.transData.transform, figure.dpi / 72
    anchors = to_pixels([label.at for label in wanted])
    dense = np.concatenate([_samples(to_pixels(np.array(ends))) for ends in strokes])
    frame = axes.get_window_extent()
    inside = (frame.x0, frame.y0, frame.x1, frame.y1)
    crowd = [np.sum(np.hypot(*(anchors - anchor).T) < 80) for anchor in anchors]
    taken: list[Box] = []
    for at in np.argsort(crowd, kind="stable")[::-1]:
        text = _written(axes, wanted[at])
        extent = Text.get_window_extent(text, canvas.get_renderer())  # without the stroke
        size = extent.width + 4, extent.height + 2
        others = np.delete(anchors, at, axis=0)
        options = [
            (_cost(box, reach, taken, others, dense, inside), shift, box, reach)
            for shift, box, reach in _options(anchors[at], size, scale)
        ]
        _, shift, box, reach = min(options, key=lambda option: option[0])
        text.xyann = shift
        if reach < FAR:
            text.arrow_patch.set_visible(False)
        taken.append(box)


def _samples(ends: np.ndarray) -> np.ndarray:
    return np.linspace(ends[0], ends[1], SAMPLES)


def _written(axes: Axes, label: Label) -> Annotation:
    text = axes.annotate(
        label.text, label.at, xytext=(0, 0), textcoords="offset points", ha="center", va="center",
        fontsize=9, color=label.colour, fontweight="bold" if label.bold else "normal", zorder=6,
        arrowprops=dict(arrowstyle="-", color=label.colour, linewidth=0.6, alpha=0.6, shrinkB=4),
    )  # fmt: skip
    text.set_in_layout(False)
    return text


def _options(
    anchor: np.ndarray, size: tuple[float, float], scale: float
) -> list[tuple[tuple[float, float], Box, int]]:
    """(offset in points, box in pixels, reach) all around a point, near ones first."""
    found = []
    for reach in REACH:
        for angle in np.arange(16) * np.pi / 8:
            away = np.array([np.cos(angle), np.sin(angle)])
            shift = away * (reach * scale + np.array(size) / 2 - 2)
            x, y = anchor + shift
            box = (x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2)
            found.append(((shift[0] / scale, shift[1] / scale), box, reach))
    return found


def _cost(
    box: Box, reach: int, taken: Sequence[Box], marks: np.ndarray, dense: np.ndarray, inside: Box
) -> float:
    """How bad it is to write here: over labels, over marks, outside, over strokes, far away."""
    areas = [area for other in taken if (area := _overlap(box, other))]
    under = _within(marks, box, MARK)
    out = (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, inside)
    return (
        sum(areas) + 400 * (len(areas) + under) + 10 * out + 12 * _within(dense, box, 1) + 4 * reach
    )


def _overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _within(points: np.ndarray, box: Box, margin: float) -> int:
    """How many points lie in a box or that near to it."""
    x, y = points.T
    across = (x > box[0] - margin) & (x < box[2] + margin)
    return int(np.sum(across & (y > box[1] - margin) & (y < box[3] + margin)))
