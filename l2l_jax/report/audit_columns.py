"""Audits where runs are compared: one column for each, retrained models first.

A cell of an unlearned model is its place between the retrained model (0) and the original (1); the
raw value of the headline stands where there is no place, and for retrained models and originals.
"""

import dataclasses
import html
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from l2l_jax.report import audit_words, reference, verdict
from l2l_jax.report.collect import Record
from l2l_jax.report.groups import Group
from l2l_jax.report.metrics import DASH
from l2l_jax.report.verdict import State

AGAINST = (State.HIDDEN, State.OVER)
READING = (
    "A place of 0 is that of a retrained model, 1 that of the original, and below 0 a model is "
    "over-forgotten. Rows of retrained models and originals show raw values: their places are 0 "
    "and 1 by definition. A cell marked raw has no place: no retrained model was attacked, or "
    "there is no gap between it and the original. Small figures in brackets are 95 % intervals "
    "over images. Red says that the verdict on a run counts this attack against it."
)


@dataclasses.dataclass(frozen=True)
class Column:
    """The headline of an audit: runs share a column if they measured the same there."""

    audit: str
    title: str  # of the figure, with where it was measured
    unit: str
    digits: int


Found = tuple[Column, Mapping[str, Any], Mapping[str, Any]]  # column, audit, row


def section(groups: Sequence[Group]) -> Iterator[str]:
    """HTML: the table, if any run was audited."""
    runs = [run for group in groups for run in group.runs if "unlearned" in run.variants]
    columns = list(dict.fromkeys(column for run in runs for column, _, _ in headlines(run)))
    if not columns:
        return
    head = "".join(
        f"<th>{html.escape(column.audit)}<br><small>{html.escape(column.title)}"
        f"{f' ({html.escape(column.unit)})' if column.unit else ''}</small></th>"
        for column in columns
    )
    body = [*_baselines(runs, columns)]
    for group in groups:
        unlearned = [run for run in group.runs if "unlearned" in run.variants]
        if unlearned:
            cells = [_cell([*_of(unlearned, column)], len(unlearned), column) for column in columns]
            body.append(_row("", group.label, len(unlearned), cells))
    yield "<h2>Does the forgetting hold?</h2>"
    yield (
        '<div class="card scroll compact audited"><table><thead><tr><th></th><th>seeds</th>'
        f"{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div><p>{READING}</p>"
    )


def headlines(run: Record) -> Iterator[Found]:
    """The headline of each audit of a run."""
    for name, audit in run.results.get("audits", {}).items():
        if (row := verdict.headline(audit)) is not None:
            figure = audit_words.described(audit)[row["figure"]]
            where = audit_words.where(row["at"])
            title = figure["title"] + (f"; {where}" if where else "")
            yield Column(name, title, figure["unit"], figure["digits"]), audit, row


def _of(runs: Sequence[Record], wanted: Column) -> Iterator[Found]:
    """The headline of a column, of each run that has it."""
    for run in runs:
        yield from (found for found in headlines(run) if found[0] == wanted)


def _row(kind: str, label: str, seeds: int, cells: Sequence[str]) -> str:
    first = f"<td>{html.escape(label)}</td><td>{seeds}</td>"
    return f'<tr class="{kind}">{first}{"".join(cells)}</tr>'


def _baselines(runs: Sequence[Record], columns: Sequence[Column]) -> Iterator[str]:
    """HTML: retrained models, then the original: raw values, over the runs of different seeds."""
    named = {
        variant: reference.name(variant, run.results)
        for run in runs
        for _, _, row in headlines(run)
        for variant in row["values"]
        if variant != "unlearned"
    }
    for variant in sorted(named, key=lambda name: (name == "original", name)):
        models = _models(runs, variant)
        cells = []
        for column in columns:
            rows = [row for _, _, row in _of(models, column)]
            measured = [row["values"][variant] for row in rows if variant in row["values"]]
            cells.append(f"<td>{_raw(measured, column.digits)}</td>")
        yield _row("base", named[variant], len({run.seed for run in models}), cells)


def _models(runs: Sequence[Record], variant: str) -> list[Record]:
    """One run for each seed and for each model that is this variant."""
    models = {}
    for run in runs:
        if any(variant in row["values"] for _, _, row in headlines(run)):
            weights = run.results["digests"]["weights"].get(variant, "")
            models.setdefault((run.seed, weights), run)
    return list(models.values())


def _cell(found: Sequence[Found], seeds: int, column: Column) -> str:
    """HTML: the place of an unlearned model; its raw value if no seed has a place."""
    if not found:
        return f"<td>{DASH}</td>"
    placed = [(audit, row["place"]) for _, audit, row in found if row["place"] is not None]
    if not placed:
        rows = [row for _, _, row in found]
        values = [row["values"]["unlearned"] for row in rows if "unlearned" in row["values"]]
        why = ", no gap" if any(row["gap"] is not None for row in rows) else ""
        return f"<td>{_raw(values, column.digits)} <small>raw{why}</small></td>"
    says = [verdict.state(audit) for audit, _ in placed if verdict.is_attack(audit)]
    notes = [
        f"<small>{each.value}{f' in {says.count(each)} of {seeds}' if seeds > 1 else ''}</small>"
        for each in AGAINST
        if each in says
    ]
    if len(placed) < seeds:
        notes.append(f"<small>{len(placed)} of {seeds} seeds</small>")
    kind = ' class="bad"' if any(each in says for each in AGAINST) else ""
    return f"<td{kind}>{_raw([place for _, place in placed], 2)} {''.join(notes)}</td>"


def _raw(measured: Sequence[Mapping[str, Any]], digits: int) -> str:
    """HTML: the mean and its deviation over seeds; the interval of a single seed."""
    values = [each["value"] for each in measured if each["value"] is not None]
    if not values:
        return DASH
    mean = html.escape(audit_words.value(_finite(statistics.fmean, values), digits))
    if len(values) > 1:
        spread = audit_words.value(_finite(statistics.stdev, values), digits)
        return f"{mean} <small>&plusmn; {html.escape(spread)}</small>"
    bounds = html.escape(audit_words.interval(measured[0]["interval"], digits))
    return f"{mean} <small>{bounds}</small>" if bounds else mean


def _finite(of: Callable[[Sequence[float]], float], values: Sequence[float]) -> float | None:
    """A statistic of the values; None if one of them is no finite number."""
    return of(values) if all(map(audit_words.is_number, values)) and values else None


def arguments(runs: Sequence[Record]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(audit, [(run, its arguments as text)]): those arguments that are not the same everywhere."""
    names = dict.fromkeys(name for run in runs for name in run.results.get("audits", {}))
    for name in names:
        args = {run.name: run.results["audits"][name]["args"] for run in runs
                if name in run.results.get("audits", {})}  # fmt: skip
        texts = {run: {k: json.dumps(v) for k, v in each.items()} for run, each in args.items()}
        keys = dict.fromkeys(key for each in texts.values() for key in each)
        differing = [k for k in keys if len({each.get(k, "") for each in texts.values()}) > 1]
        yield (
            name,
            [
                (run, ", ".join(f"{k} {each.get(k, 'not there')}" for k in differing))
                for run, each in texts.items()
            ],
        )
