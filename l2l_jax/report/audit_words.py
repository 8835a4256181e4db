"""Values and places of audits in words: "16 images, 10 steps" and "14.30 dB [13.93, 14.60]"."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from l2l_jax.report.metrics import PLAIN_DASH

MAX_PLAIN = 1e7  # larger values are written with an exponent
ORDER = ("original", "unlearned")  # of variants; retrained models follow


def value(number: float | None, digits: int) -> str:
    """A number as text; a dash for None and for what is no number."""
    if number is None or math.isnan(number):
        return PLAIN_DASH
    if abs(number) >= MAX_PLAIN:
        return f"{number:.3g}"
    return f"{round(number, digits) + 0.0:.{digits}f}"  # turns -0.0 into 0.0


def interval(bounds: Sequence[float] | None, digits: int) -> str:
    """An interval as text; "" for None."""
    if bounds is None:
        return ""
    return f"[{', '.join(value(bound, digits) for bound in bounds)}]"


def measured(found: Mapping[str, Any], digits: int) -> str:
    """A value with its interval; found: {"value", "interval"}."""
    return f"{value(found['value'], digits)} {interval(found['interval'], digits)}".rstrip()


def where(at: Mapping[str, Any]) -> str:
    """Where on its axes a figure was measured: "4 images per class, 16 images, 10 steps"."""
    return ", ".join(_part(str(key).replace("_", " "), each) for key, each in at.items())


def _part(name: str, each: Any) -> str:
    if isinstance(each, int) and not isinstance(each, bool):
        one = re.sub(r"^(\w+)s\b", r"\1", name)
        return f"{each:,} {one if each == 1 else name}"
    if isinstance(each, float):
        return f"{name} {each:g}"
    return f"{name} {each}"


def variants(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """All variants of the rows: the original, the unlearned model, then retrained ones."""
    names = dict.fromkeys(name for row in rows for name in row["values"])
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else 2, name))


def described(audit: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """{name: description} of the figures of an audit."""
    return {figure["name"]: figure for figure in audit["figures"]}


def ordered(audit: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows in the order of a table: by figure, then curve by curve, along its axis."""
    return [row for _, rows in curves(audit) for row in rows]


def curves(
    audit: Mapping[str, Any],
) -> Iterator[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """(description of the figure, rows): rows that differ on the figure's own axis only.

    Rows of a figure without an axis come together, as they stand.
    """
    for figure in audit["figures"]:
        by_rest: dict[str, list[Mapping[str, Any]]] = {}
        for row in audit["rows"]:
            if row["figure"] == figure["name"]:
                rest = without(row["at"], figure["over"]) if figure["over"] else {}
                by_rest.setdefault(where(rest), []).append(row)
        for rows in by_rest.values():
            yield figure, along(rows, figure["over"])


def without(at: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A place without one of its axes."""
    return {name: each for name, each in at.items() if name != key}


def along(rows: Sequence[Mapping[str, Any]], over: str) -> list[Mapping[str, Any]]:
    """The rows in the order of an axis: numbers rise, block.2 precedes block.10.

    Names without a number, such as classes, stand in the order of the unlearned model's values, the
    highest first.
    """
    if not over or not all(over in row["at"] for row in rows):
        return list(rows)
    places = [row["at"][over] for row in rows]
    if all(map(is_number, places)):
        return sorted(rows, key=lambda row: row["at"][over])
    parts = [re.fullmatch(r"(.*?)(\d{1,9})", str(place)) for place in places]
    if not all(parts):
        return sorted(rows, key=_unlearned, reverse=True)
    stems = list(dict.fromkeys(part[1] for part in parts if part))
    order = {p[0]: (stems.index(p[1]), int(p[2])) for p in parts if p}
    return sorted(rows, key=lambda row: order[str(row["at"][over])])


def _unlearned(row: Mapping[str, Any]) -> float:
    found = row["values"].get("unlearned", {"value": None})["value"]
    return -math.inf if found is None or math.isnan(found) else found


def is_number(place: Any) -> bool:
    """Whether a place on an axis is a finite number."""
    return isinstance(place, int | float) and not isinstance(place, bool) and abs(place) < math.inf
