"""Where a figure of the unlearned model lies between that of a retrained model and the original's.

    0 = like the retrained model     1 = like the original     below 0 = over-forgotten

With u, o and r the figures of the unlearned, the original and the retrained model, the place is
(u - r) / (o - r). Its 95 % interval comes from resamples of the images, which are the same for all
models, and from resamples of the retrained models where there are several. Two retrained models
differ by their seeds only, so that a difference below theirs, the floor, means nothing: if the gap
o - r is not larger, or its interval contains 0, nothing can be placed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from l2l_jax.lib.bootstrap import SHARE
from l2l_jax.types import Finding

REFERENCE = "retrained"  # what the names of retrained models begin with
NO_REFERENCE = "no retrained model to compare with"
NO_GAP = "no gap: original and retrained model do not differ by more than chance"


def interval_of(resamples: np.ndarray | None) -> list[float] | None:
    """The interval that holds the middle 95 % of the values; None if there are none."""
    if resamples is None:
        return None
    low, high = np.quantile(resamples, ((1 - SHARE) / 2, (1 + SHARE) / 2))
    return [float(low), float(high)]


def compare(findings: Mapping[str, Finding], seed: int) -> dict[str, Any]:
    """One figure of all variants as plain values.

    Returns {"figure", "at", "values": {variant: {"value", "interval"}}, "gap", "floor", "place":
    None or {"value", "interval"}, "why": why there is no place}. "floor" is None with one
    reference. Variants that "place" ignores: all but original, unlearned and the references.
    """
    first = next(iter(findings.values()))
    row: dict[str, Any] = {
        "figure": first.figure,
        "at": dict(first.at),
        "values": {
            name: {"value": float(x.value), "interval": interval_of(x.resamples)}
            for name, x in findings.items()
        },
        **dict.fromkeys(("gap", "floor", "place")),
        "why": NO_REFERENCE,
    }
    references = [x for name, x in findings.items() if name.startswith(REFERENCE)]
    if not references or not {"original", "unlearned"} <= findings.keys():
        return row
    return row | _placed(findings["unlearned"], findings["original"], references, seed)


def _placed(
    unlearned: Finding, original: Finding, references: Sequence[Finding], seed: int
) -> dict[str, Any]:
    values = [reference.value for reference in references]
    floor = max(values) - min(values) if len(values) > 1 else None
    aim = float(np.mean(values))
    gap = original.value - aim
    found = {"gap": float(gap), "floor": floor, "place": None, "why": NO_GAP}
    resampled = [x.resamples for x in (unlearned, original, *references)]
    if abs(gap) <= (floor or 0.0) or gap == 0:
        return found
    value = (unlearned.value - aim) / gap
    if any(x is None for x in resampled):
        return found | {"place": {"value": float(value), "interval": None}, "why": ""}
    u, o, *each = np.array(resampled)
    r = _resampled_references(np.array(each), seed)
    gaps = interval_of(o - r)
    if gaps is None or gaps[0] <= 0 <= gaps[1]:
        return found
    with np.errstate(divide="ignore", invalid="ignore"):
        places = (u - r) / (o - r)
    interval = interval_of(places[np.isfinite(places)])
    return found | {"place": {"value": float(value), "interval": interval}, "why": ""}


def _resampled_references(each: np.ndarray, seed: int) -> np.ndarray:
    """[R] the mean over as many references, drawn with repetition, of each resample: [K, R]."""
    count, resamples = each.shape
    drawn = np.random.default_rng(seed).integers(0, count, (count, resamples))
    return np.mean(np.take_along_axis(each, drawn, axis=0), axis=0)


class Compared:
    """What an audit found of all variants: rows as `compare` returns them, the headline first."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]):
        self.rows = rows

    @property
    def headline(self) -> Mapping[str, Any]:
        """The first row."""
        return self.rows[0]

    def row(self, figure: str, **at: Any) -> Mapping[str, Any]:
        """The row of a figure at a place. KeyError if there is none."""
        for row in self.rows:
            if row["figure"] == figure and row["at"] == at:
                return row
        raise KeyError(f"{figure} at {at}")

    def value(self, variant: str, figure: str, **at: Any) -> float:
        """The value of a variant."""
        return self.row(figure, **at)["values"][variant]["value"]

    def reference(self, figure: str, **at: Any) -> float | None:
        """The mean over the retrained models; None if there are none."""
        values = self.row(figure, **at)["values"]
        found = [x["value"] for name, x in values.items() if name.startswith(REFERENCE)]
        return float(np.mean(found)) if found else None
