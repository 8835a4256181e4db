"""Picture grids of several runs: splits them into rows and combines the rows into one grid."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from l2l_jax.report.collect import Record
from l2l_jax.report.groups import Group

FIRST_ROWS = ("image", "what it sees")  # of every grid; one row for each variant follows
MAX_DIFFERENCE = 0.5  # mean over uint8 values; below it only rounding differs, e.g. of two devices
Strips = dict[str, np.ndarray]  # {name of a row: uint8 [h, w, 3]}


def example_run(group: Group, groups: Sequence[Group]) -> Record:
    """The group's run with the first seed that all groups have, or else with its first seed."""
    common = set.intersection(*(set(other.seeds) for other in groups))
    return next((run for run in group.runs if run.seed in common), group.runs[0])


def strips(run: Record, name: str) -> Strips | None:
    """The rows of a grid; None if there is no such grid or if it has other rows."""
    if name not in run.images:
        return None
    with Image.open(io.BytesIO(run.images[name])) as image:
        grid = np.asarray(image.convert("RGB"))
    names = [*FIRST_ROWS, *run.variants]
    if len(grid) % len(names):
        return None
    return dict(zip(names, np.split(grid, len(names)), strict=True))


def combined(
    grids: Mapping[str, Strips | None], needed: Sequence[str]
) -> tuple[list[str], bytes] | None:
    """(row labels, PNG) of one grid made of the grids of several groups, {label: grid}.

    Its rows are the images, each different original, each different retrained model, and the
    unlearned model of each group. Grids of other images are left out; if one of them is needed,
    returns None.
    """
    first = next((grid for label in needed if (grid := grids.get(label))), None)
    if first is None:
        return None
    matching = {
        label: grid
        for label, grid in grids.items()
        if grid and all(np.array_equal(grid[name], first[name]) for name in FIRST_ROWS)
    }
    if any(label in grids and label not in matching for label in needed):
        return None
    rows = [(name, first[name]) for name in FIRST_ROWS]
    variants = dict.fromkeys(name for grid in matching.values() for name in grid)
    for variant in variants:
        if variant not in (*FIRST_ROWS, "unlearned"):
            rows += _distinct(variant, matching)
    rows += [(label, g["unlearned"]) for label, g in matching.items() if "unlearned" in g]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([strip for _, strip in rows])).save(buffer, "PNG")
    return [label for label, _ in rows], buffer.getvalue()


def _distinct(variant: str, grids: Mapping[str, Strips]) -> list[tuple[str, np.ndarray]]:
    """[(row label, row)] of a variant, without repetitions."""
    rows: list[tuple[str, np.ndarray]] = []
    for label, grid in grids.items():
        strip = grid.get(variant)
        if strip is not None and not any(_equal(strip, other) for _, other in rows):
            rows.append((label, strip))
    single = len(rows) == 1
    return [(variant if single else f"{variant} of {label}", strip) for label, strip in rows]


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two uint8 pictures are equal except for rounding."""
    return bool(np.mean(np.abs(a.astype(np.int16) - b)) < MAX_DIFFERENCE)
