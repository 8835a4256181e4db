"""Picture grids of several runs, cut into their rows and laid out as one."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from l2l_jax.report.collect import Record
from l2l_jax.report.groups import Group

GIVEN = ("image", "what it sees")  # the first rows of every sheet; then one for each variant
Strips = dict[str, np.ndarray]  # row by name, uint8 [h, w, 3]


def shown_run(group: Group, groups: Sequence[Group]) -> Record:
    """The run of the first seed that these groups have in common, or else of the group's own."""
    common = set.intersection(*(set(other.seeds) for other in groups))
    return next((run for run in group.runs if run.seed in common), group.runs[0])


def strips(run: Record, name: str) -> Strips | None:
    """The rows of a sheet by what they show, or none if it is not there or of another form."""
    if name not in run.images:
        return None
    with Image.open(io.BytesIO(run.images[name])) as image:
        sheet = np.asarray(image.convert("RGB"))
    names = [*GIVEN, *run.variants]
    if len(sheet) % len(names):
        return None
    return dict(zip(names, np.split(sheet, len(names)), strict=True))


def together(
    sheets: Mapping[str, Strips | None], needed: Sequence[str]
) -> tuple[list[str], bytes] | None:
    """(row labels, PNG) of one sheet from those of groups; None if the needed show other images.

    What is given stands there once, an original or a retrained model once for all that agree on it,
    then the unlearned model of each group. Others join in if they show the same images.
    """
    first = next((sheet for label in needed if (sheet := sheets.get(label))), None)
    if first is None:
        return None
    alike = {
        label: sheet
        for label, sheet in sheets.items()
        if sheet and all(np.array_equal(sheet[name], first[name]) for name in GIVEN)
    }
    if any(label in sheets and label not in alike for label in needed):
        return None
    rows = [(name, first[name]) for name in GIVEN]
    for variant in ("original", "retrained"):
        rows += _distinct(variant, alike)
    rows += [(label, s["unlearned"]) for label, s in alike.items() if "unlearned" in s]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([strip for _, strip in rows])).save(buffer, "PNG")
    return [label for label, _ in rows], buffer.getvalue()


def _distinct(variant: str, sheets: Mapping[str, Strips]) -> list[tuple[str, np.ndarray]]:
    found: list[tuple[str, np.ndarray]] = []
    for label, sheet in sheets.items():
        strip = sheet.get(variant)
        if strip is not None and not any(_alike(strip, other) for _, other in found):
            found.append((label, strip))
    one = len(found) == 1
    return [(variant if one else f"{variant} of {label}", strip) for label, strip in found]


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether only rounding tells them apart, such as that of two devices."""
    return bool(np.mean(np.abs(a.astype(np.int16) - b)) < 0.5)
