"""The drawings of a page, as SVG text. Retain is blue and forget is orange on every page."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"retain": "#2563eb", "forget": "#ea580c"}
OTHER_COLOUR = "#475569"
MAX_LABEL = 40  # characters of a text in a drawing
MAX_VALUE = 1e30  # larger values are not drawn: no axis could show them
STYLE: dict[Any, Any] = {  # the keys are names of matplotlib's rcParams
    "svg.fonttype": "none",  # text stays text and takes the page's font
    "svg.hashsalt": "l2l_jax",  # the same drawing is the same file
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#94a3b8",
    "axes.labelcolor": "#334155",
    "axes.titlecolor": "#0f172a",
    "xtick.color": "#475569",
    "ytick.color": "#475569",
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "grid.linewidth": 0.8,
}


def curves(metrics: Sequence[Mapping[str, Any]], phase: str) -> str:
    """SVG: the objectives of a phase over its steps; every value pale, their moving mean strong.

    An objective that is zero at every step is not drawn; if both are, returns "".
    """
    records = [record for record in metrics if record["phase"] == phase]
    sides = [side for side in COLOURS if any(_drawn(record, side) for record in records)]
    if not sides:
        return ""
    last = max(record["step"] for record in records)
    with rc_context(STYLE):
        figure = Figure(figsize=(9.2, 2.9), layout="constrained")
        panels = figure.subplots(1, len(sides), squeeze=False)[0]
        for axes, side in zip(panels, sides, strict=True):
            recorded = [r for r in records if r.get(side) is not None and finite(r[side])]
            steps = np.array([record["step"] for record in recorded])
            values = np.array([record[side] for record in recorded])
            axes.plot(steps, values, color=COLOURS[side], alpha=0.25, linewidth=0.8)
            mean = moving_mean(values, max(1, len(values) // 40))
            axes.plot(steps, mean, color=COLOURS[side], linewidth=2)
            axes.set_title(f"{side} objective", loc="left", fontsize=11, fontweight="bold")
            axes.set_xlabel("step")
            axes.set_xlim(0, max(1, last))
            if np.all(values >= 0):
                axes.set_ylim(bottom=0)
        return svg(figure)


def short(text: str) -> str:
    """The text, cut if it has more than MAX_LABEL characters: long ones take minutes to lay out."""
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"


def finite(value: float) -> bool:
    """Whether a value can be drawn."""
    return abs(value) < MAX_VALUE  # false for nan


def _drawn(record: Mapping[str, Any], side: str) -> bool:
    """Whether a record has an objective that is not zero and can be drawn."""
    return bool(record.get(side)) and finite(record[side])


def moving_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean over the last `width` values; over those that exist at the beginning."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (total[ends] - total[starts]) / (ends - starts)


def scatter(tsne: Mapping[str, Any]) -> str:
    """SVG of the record tsne.json: one panel for each variant, coloured by side."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9.2, 4.4), layout="constrained")
        groups = [{**g, "points": [p for p in g["points"] if all(map(finite, p))]}
                  for g in tsne["groups"]]  # fmt: skip
        variants = list(dict.fromkeys(group["variant"] for group in groups))
        panels = figure.subplots(1, len(variants), sharex=True, sharey=True, squeeze=False)[0]
        for axes, variant in zip(panels, variants, strict=True):
            for group in groups:
                _cloud(axes, group, pale=group["variant"] != variant)
            axes.set_title(f"{short(variant)} model", loc="left", fontsize=11, fontweight="bold")
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
        panels[0].legend(loc="best", frameon=False, fontsize=9)
        return svg(figure)


def _cloud(axes: Axes, group: Mapping[str, Any], pale: bool) -> None:
    """Draws one group of points, in pale grey if it belongs to another variant."""
    x, y = np.array(group["points"], np.float64).reshape(-1, 2).T
    if pale:
        axes.scatter(x, y, s=10, color="#e2e8f0", linewidths=0, zorder=1)
    else:
        colour = COLOURS.get(group["side"], OTHER_COLOUR)
        axes.scatter(x, y, s=20, color=colour, alpha=0.8, linewidths=0, zorder=2,
                     label=f"{short(group['side'])} images")  # fmt: skip


def svg(figure: Figure) -> str:
    """The <svg> element of a figure, to be inserted into a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
