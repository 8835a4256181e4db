"""The answer to each line of a list of images to forget, as a table (CSV) and in figures."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

COLUMNS = (
    "image", "state", "exact_copies", "near_copies", "copies_in", "loss_before", "loss_after",
    "unseen_before", "unseen_after", "score_before", "score_after",
)  # fmt: skip
NUMBERS = COLUMNS[5:]
DIGITS = 6  # significant ones
UNKNOWN = ("not in the data", "not readable")  # states of images that were not looked at


def table(rows: Sequence[Mapping[str, Any]], names: bool) -> str:
    """The rows as CSV with a head; a value that is not known is empty.

    names: the images by their names, with a last column that names their copies; else by their
    salted digests.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(["copies"] if names else [])])
    for row in rows:
        image = row["image"] if names else row["digest"]
        copies_in = "; ".join(f"{n} in {name}" for name, n in row.get("copies_in", {}).items())
        cells = [image, row["state"], row.get("exact_copies"), row.get("near_copies"), copies_in]
        cells += [_rounded(row.get(name)) for name in NUMBERS]
        cells += ["; ".join(row.get("copies", ()))] if names else []
        writer.writerow([_safe("" if cell is None else cell) for cell in cells])
    return text.getvalue()


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{"lines", "found", "with_exact_copies", "with_near_copies", and the mean of each number}.

    rows: as answers.json or `parsed` has them. A mean is None if no row has the number.
    """
    made: dict[str, Any] = {
        "lines": len(rows),
        "found": sum(row["state"] not in UNKNOWN for row in rows),
        "with_exact_copies": sum(bool(row.get("exact_copies")) for row in rows),
        "with_near_copies": sum(bool(row.get("near_copies")) for row in rows),
    }
    for name in NUMBERS:
        values = [float(_rounded(row[name])) for row in rows if row.get(name) is not None]
        made[name] = float(f"{np.mean(values):.{DIGITS}g}") if values else None
    return made


def parsed(text: str) -> list[dict[str, Any]]:
    """The rows of a table; "image" is what stands there. ValueError if it has another form."""
    rows = []
    for cells in csv.DictReader(io.StringIO(text), strict=True):
        row: dict[str, Any] = dict(cells)
        for name in ("exact_copies", "near_copies"):
            row[name] = int(cells[name]) if cells[name] else 0
        for name in NUMBERS:
            row[name] = float(cells[name]) if cells[name] else None
        rows.append(row)
    return rows


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.{DIGITS}g}"


def _safe(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "@", "\t", "\r") else cell
