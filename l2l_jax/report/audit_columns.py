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

from l2l_jax.report import audit_words, reference, tables, verdict
from l2l_jax.report.collect import Record
from l2l_jax.report.groups import Group
from l2l_jax.report.metrics import PLAIN_DASH
from l2l_jax.report.verdict import State

AGAINST = (State.HIDDEN, State.OVER)
READING = (
    "A place of 0 is that of a retrained model, 1 that of the original, and below 0 a model is "
    "over-forgotten. Rows of retrained models and originals show raw values: their places are 0 "
    "and 1 by definition. A cell marked raw has no place: no retrained model was attacked, or "
    "there is no gap between it and the original. Figures in brackets are 95 % intervals over "
    "images."
)
RED = "Red says that the verdict on a run counts this attack against it."
TITLE = "Does the forgetting hold?"


@dataclasses.dataclass(frozen=True)
class Column:
    """The headline of an audit: runs share a column if they measured the same there."""

    audit: str
    title: str  # of the figure, with where it was measured
    unit: str
    digits: int

    @property
    def measured(self) -> str:
        """What was measured, with its unit."""
        return self.title + (f" ({self.unit})" if self.unit else "")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of the table, as plain text."""

    value: str = PLAIN_DASH
    spread: str = ""  # a deviation over seeds, or an interval over images
    notes: Sequence[str] = ()
    against: bool = False  # whether the verdict on a run counts it against the model


@dataclasses.dataclass(frozen=True)
class Line:
    """One row of the table: a model that was attacked."""

    label: str
    seeds: int
    cells: Sequence[Cell]
    base: bool = False  # an original or a retrained model: its values are raw


Found = tuple[Column, Mapping[str, Any], Mapping[str, Any]]  # column, audit, row


def section(groups: Sequence[Group]) -> Iterator[str]:
    """HTML: the table, if any run was audited."""
    columns, lines = table(groups)
    if not columns:
        return
    head = "".join(
        f"<th>{html.escape(column.audit)}<br><small>{html.escape(column.measured)}</small></th>"
        for column in columns
    )
    body = "".join(map(_line_html, lines))
    yield f"<h2>{TITLE}</h2>"
    yield (
        '<div class="card scroll compact audited"><table><thead><tr><th></th><th>seeds</th>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div><p>{READING} {RED}</p>"
    )


def _line_html(line: Line) -> str:
    cells = "".join(map(_cell_html, line.cells))
    first = f"<td>{html.escape(line.label)}</td><td>{line.seeds}</td>"
    return f'<tr class="{"base" if line.base else ""}">{first}{cells}</tr>'


def _cell_html(cell: Cell) -> str:
    small = [f"<small>{html.escape(text)}</small>" for text in (cell.spread, *cell.notes) if text]
    kind = ' class="bad"' if cell.against else ""
    return f"<td{kind}>{' '.join([html.escape(cell.value), *small])}</td>"


def markdown(groups: Sequence[Group]) -> str:
    """The table as GitHub markdown with how to read it; "" if no run was audited."""
    columns, lines = table(groups)
    if not columns:
        return ""
    rows = [["model", "seeds", *(f"{c.audit}: {c.measured}" for c in columns)]]
    for line in lines:
        rows.append([line.label, str(line.seeds), *map(_cell_text, line.cells)])
    texts = [[tables.markdown_text(text) for text in row] for row in rows]
    texts.insert(1, [":--", *["--:"] * (len(columns) + 1)])
    return "".join(f"| {' | '.join(row)} |\n" for row in texts) + f"\n{READING}\n"


def _cell_text(cell: Cell) -> str:
    notes = f" ({', '.join(cell.notes)})" if cell.notes else ""
    return " ".join(filter(None, (cell.value, cell.spread))) + notes


def table(groups: Sequence[Group]) -> tuple[list[Column], list[Line]]:
    """The columns and the rows, retrained models and originals first; ([], []) without audits."""
    runs = [run for group in groups for run in group.runs if "unlearned" in run.variants]
    columns = list(dict.fromkeys(column for run in runs for column, _, _ in headlines(run)))
    lines = [*_baselines(runs, columns)] if columns else []
    for group in groups if columns else ():
        if unlearned := [run for run in group.runs if "unlearned" in run.variants]:
            cells = [_cell([*_of(unlearned, column)], len(unlearned), column) for column in columns]
            lines.append(Line(group.label, len(unlearned), cells))
    return columns, lines


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


def _baselines(runs: Sequence[Record], columns: Sequence[Column]) -> Iterator[Line]:
    """Retrained models, then the original: raw values, over the runs of different seeds."""
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
            cells.append(_raw(measured, column.digits))
        yield Line(named[variant], len({run.seed for run in models}), cells, base=True)


def _models(runs: Sequence[Record], variant: str) -> list[Record]:
    """One run for each seed and for each model that is this variant."""
    models = {}
    for run in runs:
        if any(variant in row["values"] for _, _, row in headlines(run)):
            weights = run.results["digests"]["weights"].get(variant, "")
            models.setdefault((run.seed, weights), run)
    return list(models.values())


def _cell(found: Sequence[Found], seeds: int, column: Column) -> Cell:
    """The place of an unlearned model; its raw value if no seed has a place."""
    if not found:
        return Cell()
    placed = [(audit, row["place"]) for _, audit, row in found if row["place"] is not None]
    if not placed:
        rows = [row for _, _, row in found]
        values = [row["values"]["unlearned"] for row in rows if "unlearned" in row["values"]]
        why = ", no gap" if any(row["gap"] is not None for row in rows) else ""
        return dataclasses.replace(_raw(values, column.digits), notes=(f"raw{why}",))
    says = [verdict.state(audit) for audit, _ in placed if verdict.is_attack(audit)]
    against = [each for each in AGAINST if each in says]
    notes = [
        each.value + (f" in {says.count(each)} of {seeds}" if seeds > 1 else "") for each in against
    ]
    if len(placed) < seeds:
        notes.append(f"{len(placed)} of {seeds} seeds")
    cell = _raw([place for _, place in placed], 2)
    return dataclasses.replace(cell, notes=tuple(notes), against=bool(against))


def _raw(measured: Sequence[Mapping[str, Any]], digits: int) -> Cell:
    """The mean and its deviation over seeds; the interval of a single seed."""
    values = [each["value"] for each in measured if each["value"] is not None]
    if not values:
        return Cell()
    mean = audit_words.value(_finite(statistics.fmean, values), digits)
    if len(values) > 1:
        spread = audit_words.value(_finite(statistics.stdev, values), digits)
        return Cell(mean, f"± {spread}")
    return Cell(mean, audit_words.interval(measured[0]["interval"], digits))


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
