"""How figures are read and written: their titles, the direction that is good, digits and units.

A run's results["figures"] describes each of its figures: {name: the fields of types.Figure}. The
order of this dictionary is the order of tables. A figure without a description is not shown.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from l2l_jax.report.collect import Record

Figures = Mapping[str, Mapping[str, Any]]  # as results["figures"]

NEAR = "near"  # the good direction: as close as possible to the retrained model's figure
ARROWS = {"up": "&uarr;", "down": "&darr;", NEAR: "&asymp;", "": ""}
PLAIN_ARROWS = {"up": "\u2191", "down": "\u2193", NEAR: "\u2248", "": ""}
DASH = "&ndash;"
PLAIN_DASH = "\u2013"
PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")


def merged(runs: Iterable[Record]) -> Figures:
    """The figures of all runs; the first run that describes a figure decides how it is shown."""
    figures: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        for name, figure in run.results["figures"].items():
            figures.setdefault(name, figure)
    return figures


def measured(results: Mapping[str, Any]) -> set[str]:
    """The names of all figures that have a value in results["tasks"]."""
    tasks = results["tasks"].values()
    sides = (cells for variants in tasks for each in variants.values() for cells in each.values())
    return {name for cells in sides for name, value in cells.items() if value is not None}


def shown(figures: Figures, names: Collection[str]) -> list[str]:
    """Those of these figures that have a column of their own, in the order of tables.

    A standard deviation (spread_of) has none, nor has a figure without a description.
    """
    return [name for name in figures if name in names and not figures[name]["spread_of"]]


def notes(figures: Figures, names: Collection[str]) -> str:
    """The explanations of those of these figures that have one, each once."""
    texts = (figures[name]["note"] for name in shown(figures, names))
    return " ".join(dict.fromkeys(filter(None, texts)))


def goal(side: str, figure: Mapping[str, Any], reference: bool) -> str:
    """The good direction of a figure on a side: "up", "down", NEAR, or "" if there is none.

    reference: whether there is a retrained model. Without one, no direction is good on the forget
    side: a model that completes these images as badly as it can is damaged. A figure that is a
    distance to the retrained model is good in the same direction on both sides.
    """
    if side.startswith("retain") or figure["good_on_forget"] == "same":
        return figure["good"]
    return NEAR if reference and figure["good"] else ""


def number(value: float | None, digits: int) -> str:
    """A figure as text, or a dash for None."""
    return DASH if value is None else f"{value:.{digits}f}"


def interval(bounds: Sequence[float] | None, digits: int) -> str:
    """A 95 % interval as text, such as "[1.20, 1.40]"; "" for None."""
    if bounds is None:
        return ""
    low, high = bounds
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def measured_value(
    results: Mapping[str, Any], task: str, variant: str, side: str, figure: Mapping[str, Any]
) -> str:
    """HTML: a figure of one run with its interval, if it has one; a dash if there is no value."""
    value = results["tasks"][task][variant][side].get(figure["name"])
    bounds = results["intervals"][task][variant][side].get(figure["name"])
    small = f" <small>{interval(bounds, figure['digits'])}</small>" if bounds else ""
    return number(value, figure["digits"]) + small


def any_interval(results: Mapping[str, Any]) -> bool:
    """Whether any figure of a run has an interval."""
    tasks = results["intervals"].values()
    return any(cells for variants in tasks for each in variants.values() for cells in each.values())


def si(value: float | None, unit: str) -> str:
    """Three significant digits and a prefix, such as "1.23 TFLOP"; a dash for None."""
    if value is None:
        return DASH
    power = 0
    while abs(value) >= 999.5 and power < len(PREFIXES) - 1:
        value, power = value / 1000, power + 1
    digits = 0 if abs(value) >= 99.95 or not power else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f} {PREFIXES[power]}{unit}"


def cost_text(cost: Mapping[str, Any]) -> str:
    """The cost of a phase, an entry of results["cost"], as text; dashes for missing values."""
    steps, seconds = cost.get("steps"), cost.get("seconds")
    return ", ".join(
        (
            DASH if seconds is None else f"{seconds:,.0f} s",
            f"{DASH if steps is None else format(steps, ',')} steps",
            si(cost.get("flops"), "FLOP"),
            f"peak memory {si(cost.get('memory'), 'B')}",
        )
    )


def pretraining_share(results: Mapping[str, Any], phases: Sequence[str]) -> float | None:
    """The FLOPs of the phases that unlearn over those of the original's training.

    phases: those that unlearn. None if there are none, or if either cost is not known.
    """
    whole = (results.get("pretraining") or {}).get("flops")
    spent = [results["cost"].get(phase, {}).get("flops") for phase in phases]
    known = [value for value in spent if value is not None]
    return sum(known) / whole if whole and known and len(known) == len(spent) else None
