"""The tables of one run's page: all figures of one task, for every variant and side."""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from l2l_jax.report import feature_networks, reference
from l2l_jax.report.collect import Record
from l2l_jax.report.metrics import ARROWS, DASH, NEAR, any_interval, goal, measured_value, shown

INTERVALS = (
    "Small figures in brackets are 95 % bootstrap intervals over images: where the mean figure of "
    "other sets of as many images would lie. They say nothing about another seed of training."
)
MIN_CHANGE = 0.01  # relative; a smaller change is neither good nor bad


def tables(record: Record, task: str) -> Iterator[str]:
    """HTML: one table of both sides, or with a retrained model one for each side: forget first."""
    if any(map(reference.is_retrained, record.variants)) and "unlearned" in record.variants:
        for side in reversed(record.sides):
            yield _table(record, task, [side])
    else:
        yield _table(record, task, record.sides)


def _table(record: Record, task: str, sides: Sequence[str]) -> str:
    """HTML: a row for each figure; on each side all variants, and the change by unlearning.

    With a retrained model also the difference between the unlearned and the retrained model.
    """
    cells = record.results["tasks"][task]
    variants = record.variants
    change = "unlearned" in variants
    compared = change and any(map(reference.is_retrained, variants))
    width = len(variants) + change + compared
    head = "".join(
        f'<th colspan="{width}" class="side {html.escape(side)}">{html.escape(side)} '
        f"(n = {record.results['counts'][side]:,})</th>"
        for side in sides
    )
    at = variants.index("unlearned") if change else 0
    named = [html.escape(reference.name(variant, record.results)) for variant in variants]
    names = [*named[: at + 1], *(["change"] if change else []), *named[at + 1 :]]
    names += ["unlearned &minus; retrained"] if compared else []
    second = "".join(f"<th>{name}</th>" for _ in sides for name in names)
    rows = []
    figures, untrained = record.results["figures"], feature_networks.untrained(record.results)
    for metric in shown(figures, {m for v in variants for side in sides for m in cells[v][side]}):
        figure, digits = figures[metric], figures[metric]["digits"]
        unit = feature_networks.RANDOM_MARK if metric in untrained else html.escape(figure["unit"])
        title = html.escape(figure["title"])
        row = [f"<td>{title}{f' <small>{unit}</small>' if unit else ''}</td>"]
        for side in sides:
            values = [cells[v][side].get(metric) for v in variants]
            texts = [
                f"<td>{measured_value(record.results, task, v, side, figure)}</td>"
                for v in variants
            ]
            if change:
                aim = reference.aim_of(cells, side, metric)
                direction = goal(side, figure, compared)
                texts.insert(at + 1, _change(values[0], values[at], direction, digits, aim[0]))
                texts += [_gap(side, figure, values[0], values[at], aim)] if compared else []
            row += texts
        rows.append(f"<tr>{''.join(row)}</tr>")
    return (
        f'<div class="card scroll compact"><table><thead><tr><th></th>{head}</tr>'
        f"<tr><th></th>{second}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _change(old: float | None, new: float | None, good: str, digits: int, aim: float | None) -> str:
    """HTML: the difference; green in the direction `good`, red in the other, grey if small.

    aim: the retrained model's figure, if there is one; NEAR is the direction towards it.
    """
    if old is None or new is None:
        return f"<td>{DASH}</td>"
    delta = round(new - old, digits) + 0.0  # turns -0.0 into 0.0
    if good == NEAR:
        closer = aim is not None and abs(new - aim) < abs(old - aim)
        kind = "good" if closer else "bad" if aim is not None else "same"
    else:
        kind = "good" if (delta > 0) == (good == "up") else "bad"
    if abs(delta) <= MIN_CHANGE * abs(old) or not good:
        kind = "same"
    direction = f" <small>good {ARROWS[good]}</small>" if good else ""
    return f'<td class="{kind}">{delta:+.{digits}f}{direction}</td>'


def _gap(
    side: str,
    figure: Mapping[str, Any],
    old: float | None,
    new: float | None,
    aim: tuple[float | None, float],
) -> str:
    """HTML: the unlearned minus the retrained model's figure, marked if it is over-forgotten.

    aim: the mean figure of the retrained models, and how far these differ from each other.
    """
    if new is None or aim[0] is None or figure["good_on_forget"] == "same":
        return f"<td>{DASH}</td>"
    text = f"{round(new - aim[0], figure['digits']) + 0.0:+.{figure['digits']}f}"
    if side == "forget" and reference.over_forgotten(new, old, *aim):
        return f'<td class="bad">{text} {reference.MARK}<small>{reference.OVER}</small></td>'
    return f"<td>{text}</td>"


def reading(record: Record) -> str:
    """How to read the intervals, colours and marks of the tables, in words."""
    about = [INTERVALS] if any_interval(record.results) else []
    if "unlearned" not in record.variants:
        return " ".join(about)
    compared = any(map(reference.is_retrained, record.variants))
    words = (
        "An arrow shows the direction that is good. A change in this direction is green, in the "
        "other direction red, and grey if it is less than one percent."
    )
    more = [reference.CLOSEST, reference.EXPLANATION] if compared else [reference.NO_BEST]
    return " ".join([*about, words, *(more if "forget" in record.sides else [])])
