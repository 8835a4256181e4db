"""Places the labels of a plot beside their points, where they cover the least."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text

DISTANCES = (9, 15, 23, 34, 48, 66, 90)  # between a label and its point, in typographic points
ANGLES = 16  # directions in which a label is tried
MIN_LEADER = 20  # distance from which a line connects the label to its point
MARKER_RADIUS = 7  # pixels
CROWD_RADIUS = 80  # pixels within which other points make a point crowded
STROKE_SAMPLES = 24  # positions on a stroke that a label should not cover

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
    """Adds every label to the axes near its point; those of crowded points choose first."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "the axes belong to a figure"
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # lays the figure out: only then the transformation to pixels is valid
    to_pixels, scale = axes.transData.transform, figure.dpi / 72
    anchors = to_pixels([label.at for label in wanted])
    dense = np.concatenate([_samples(to_pixels(np.array(ends))) for ends in strokes])
    frame = axes.get_window_extent()
    inside = (frame.x0, frame.y0, frame.x1, frame.y1)
    crowd = [np.sum(np.hypot(*(anchors - anchor).T) < CROWD_RADIUS) for anchor in anchors]
    taken: list[Box] = []
    for at in np.argsort(crowd, kind="stable")[::-1]:
        text = _annotation(axes, wanted[at])
        extent = Text.get_window_extent(text, canvas.get_renderer())  # without the stroke
        size = extent.width + 4, extent.height + 2
        others = np.delete(anchors, at, axis=0)
        options = [
            (_cost(box, distance, taken, others, dense, inside), shift, box, distance)
            for shift, box, distance in _options(anchors[at], size, scale)
        ]
        _, shift, box, distance = min(options, key=lambda option: option[0])
        text.xyann = shift
        if text.arrow_patch is not None and distance < MIN_LEADER:
            text.arrow_patch.set_visible(False)
        taken.append(box)


def _samples(ends: np.ndarray) -> np.ndarray:
    return np.linspace(ends[0], ends[1], STROKE_SAMPLES)


def _annotation(axes: Axes, label: Label) -> Annotation:
    """Adds the text at its point, with a line that leads to it."""
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
    """(offset in points, box in pixels, distance) all around a point, near ones first."""
    options = []
    for distance in DISTANCES:
        for angle in np.arange(ANGLES) * np.pi / (ANGLES // 2):
            direction = np.array([np.cos(angle), np.sin(angle)])
            shift = direction * (distance * scale + np.array(size) / 2 - 2)
            x, y = anchor + shift
            box = (x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2)
            options.append(((shift[0] / scale, shift[1] / scale), box, distance))
    return options


def _cost(
    box: Box, distance: int, taken: Sequence[Box], marks: np.ndarray, dense: np.ndarray, inside: Box
) -> float:
    """The cost of a box: it covers labels, markers or strokes, leaves the axes, or is far away."""
    areas = [area for other in taken if (area := _overlap(box, other))]
    covered = len(areas) + _within(marks, box, MARKER_RADIUS)
    outside = (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, inside)
    strokes = _within(dense, box, 1)
    return sum(areas) + 400 * covered + 10 * outside + 12 * strokes + 4 * distance


def _overlap(a: Box, b: Box) -> float:
    """The area that two boxes share, in square pixels."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _within(points: np.ndarray, box: Box, margin: float) -> int:
    """How many points lie in a box that is enlarged by a margin on every side."""
    x, y = points.T
    across = (x > box[0] - margin) & (x < box[2] + margin)
    return int(np.sum(across & (y > box[1] - margin) & (y < box[3] + margin)))
