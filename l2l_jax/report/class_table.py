"""Every class by itself: what it lost, the worst first."""

import html
from collections.abc import Iterator, Mapping
from typing import Any

from l2l_jax.report import reference
from l2l_jax.report.collect import Record
from l2l_jax.report.metrics import DASH
from l2l_jax.report.pictures import VERBS

MAX_ROWS = 100  # classes of a side that are listed
ORDER = {
    "retain": "the class that lost most comes first",
    "forget": "the class that lost least comes first",
}
ORDER_ALONE = "the class that is completed worst comes first"


def tables(record: Record) -> Iterator[str]:
    """HTML: for each task and side a table with the PSNR of every class under every variant."""
    by_class = record.results.get("by_class", {})
    if any(sides for sides in by_class.values()):
        yield "<h2>Class by class</h2>"
        yield "<p>PSNR on hidden pixels in dB, the mean over the held-out images of a class.</p>"
    for task in record.results["tasks"]:
        for side in reversed(record.sides):
            if cells := by_class.get(task, {}).get(side):
                yield from _table(record, f"{task}: classes to {VERBS[side]}", side, cells)


def _table(record: Record, title: str, side: str, cells: Mapping[str, Any]) -> Iterator[str]:
    variants, changed = record.variants, "unlearned" in record.variants
    rows = sorted(cells.items(), key=lambda item: _badness(side, item[1]["psnr"], changed))
    names = [reference.name(variant, record.results) for variant in variants]
    heads = ["class", "images", *names, *(["change"] if changed else [])]
    body = []
    for name, cell in rows[:MAX_ROWS]:
        values = [_decibels(cell["psnr"].get(variant)) for variant in variants]
        if changed:
            change = _change(cell["psnr"])
            values.append(DASH if change is None else f"{change:+.2f}")
        columns = "".join(f"<td>{value}</td>" for value in (f"{cell['images']:,}", *values))
        escaped = html.escape(name)
        body.append(f'<tr data-class="{escaped}"><th scope="row">{escaped}</th>{columns}</tr>')
    head = "".join(f'<th scope="col">{html.escape(each)}</th>' for each in heads)
    order = ORDER[side] if changed else ORDER_ALONE
    more = f" {len(rows) - MAX_ROWS:,} more classes are not listed." if rows[MAX_ROWS:] else ""
    yield (
        f'<div class="card scroll"><table class="classes"><caption>{html.escape(title)} '
        f"<small>{order}.{more}</small></caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _change(psnr: Mapping[str, float | None]) -> float | None:
    """PSNR of the unlearned model minus that of the original, dB."""
    before, after = psnr.get("original"), psnr.get("unlearned")
    return None if before is None or after is None else after - before


def _badness(side: str, psnr: Mapping[str, float | None], changed: bool) -> float:
    """Smaller comes first; a class without a value comes last."""
    value = _change(psnr) if changed else next(iter(psnr.values()), None)
    if value is None or value != value:
        return float("inf")
    return -value if changed and side == "forget" else value


def _decibels(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"
