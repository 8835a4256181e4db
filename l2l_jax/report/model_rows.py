"""The models of a comparison as rows: figures over seeds, which is best, how far from retrained."""

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from l2l_jax.report import reference
from l2l_jax.report.collect import Record
from l2l_jax.report.groups import Group
from l2l_jax.report.metrics import NEAR, Figures, goal, shown

SIDES = ("retain", "forget")  # of tables
Column = tuple[str, str]  # side, name of a figure
Cells = dict[Column, float]
Intervals = dict[Column, Sequence[float]]  # (low, high)
MAX_DIFFERENCE = 0.01  # relative, between two measurements of the same model


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table: a model, evaluated with one or more seeds."""

    label: str
    kind: str  # "original", "retrained" or "unlearned"
    values: tuple[Cells, ...]  # one for each seed
    seeds: tuple[int, ...]
    group: Group | None = None  # the runs of an unlearned model; None for the other kinds
    intervals: tuple[Intervals, ...] = ()  # one for each seed
    original: Mapping[Column, float] = dataclasses.field(default_factory=dict)  # of an unlearned
    #     model: the mean figures of its originals
    aim: Mapping[Column, float] = dataclasses.field(default_factory=dict)  # and of its retrained
    #     models, if there are any
    floor: Mapping[Column, float] = dataclasses.field(default_factory=dict)  # and how far these
    #     differ from each other

    def of(self, column: Column) -> list[float]:
        """The values of a column, without the seeds that have none."""
        return [cells[column] for cells in self.values if column in cells]

    def mean(self, column: Column) -> float | None:
        """The mean over seeds; None if no seed has a value."""
        return statistics.fmean(self.of(column)) if self.of(column) else None

    def deviation(self, column: Column) -> float | None:
        """The standard deviation over seeds (n - 1); None with fewer than two values."""
        values = self.of(column)
        if len(values) < 2:
            return None
        return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan

    def interval(self, column: Column) -> Sequence[float] | None:
        """The interval over images of a single run; None with several seeds."""
        return self.intervals[0].get(column) if len(self.intervals) == 1 else None

    def distance(self, column: Column) -> float | None:
        """How far the mean is from the figure of the retrained models; None if there are none."""
        mean, aim = self.mean(column), self.aim.get(column)
        return None if mean is None or aim is None else abs(mean - aim)

    def over(self, figure: Mapping[str, Any], side: str = "forget") -> bool:
        """Whether a figure of a forget side is over-forgotten."""
        column = side, figure["name"]
        return goal(side, figure, reference=True) == NEAR and reference.over_forgotten(
            self.mean(column),
            self.original.get(column),
            self.aim.get(column),
            self.floor.get(column, 0.0),
        )


def rows(groups: Sequence[Group], task: str) -> list[Row]:
    """Original models, then retrained models, then the unlearned model of each group.

    A group whose runs name no reference is compared with the retrained models of the other rows.
    """
    table = list(_baselines(groups, task, "original"))
    variants = dict.fromkeys(v for group in groups for run in group.runs for v in run.variants)
    for variant in filter(reference.is_retrained, variants):
        table += _baselines(groups, task, variant)
    retrained = [row for row in table if row.kind == "retrained"]
    for group in groups:
        runs = [run for run in group.runs if "unlearned" in run.results["tasks"].get(task, {})]
        if runs:
            values = tuple(_cells(run, task, "unlearned") for run in runs)
            seeds = tuple(run.seed for run in runs)
            original = _means([_cells(run, task, "original") for run in runs])
            aim, floor = _aims(runs, task)
            if not aim:
                cells = [_means(row.values) for row in retrained]
                aim, floor = _means(cells), _floors(cells)
            spans = tuple(_intervals(run, task, "unlearned") for run in runs)
            row = Row(group.label, "unlearned", values, seeds, group, spans, original, aim, floor)
            table.append(row)
    return table


def _means(cells: Sequence[Cells]) -> Cells:
    """The mean of each column over those that have it."""
    columns = dict.fromkeys(column for each in cells for column in each)
    return {k: statistics.fmean([each[k] for each in cells if k in each]) for k in columns}


def _floors(cells: Sequence[Cells]) -> Cells:
    """The mean difference of each column between two of several models; {} of a single one."""
    if len(cells) < 2:
        return {}
    return {k: reference.aim([each[k] for each in cells if k in each])[1] for k in _means(cells)}


def _aims(runs: Sequence[Record], task: str) -> tuple[Cells, Cells]:
    """(the mean figures of the runs' own retrained models, their floors); empty without any."""
    found = [
        [_cells(run, task, v) for v in run.results["tasks"][task] if reference.is_retrained(v)]
        for run in runs
    ]
    aims = [_means(cells) for cells in found if cells]
    return _means(aims), _means([_floors(cells) for cells in found if cells])


def ordered(table: Sequence[Row], figures: Figures) -> list[Row]:
    """The rows in the order of a table: baselines, then unlearned models.

    With a retrained model the unlearned models are in the order of their distance to it, in the
    first figure of the forget side that has one.
    """
    column = headline(table, figures)
    if column is None:
        return list(table)

    def place(row: Row) -> tuple[bool, float]:
        distance = row.distance(column)
        return row.group is not None, 0.0 if row.group is None else _last(distance)

    return sorted(table, key=place)


def headline(table: Sequence[Row], figures: Figures) -> Column | None:
    """The column that decides the order of unlearned models; None without a retrained model."""
    for side, metric in columns(table, figures):
        near = side == "forget" and goal(side, figures[metric], reference=True) == NEAR
        if near and any(row.distance((side, metric)) is not None for row in table):
            return side, metric
    return None


def _last(distance: float | None) -> float:
    return float("inf") if distance is None else distance


def _cells(run: Record, task: str, variant: str) -> Cells:
    """The figures of one run that tables show."""
    sides = run.results["tasks"][task][variant]
    return {
        (side, metric): values[metric]
        for side, values in sides.items()
        for metric in shown(run.results["figures"], values)
        if values[metric] is not None
    }


def _intervals(run: Record, task: str, variant: str) -> Intervals:
    sides = run.results["intervals"][task][variant]
    return {(side, name): bounds for side, each in sides.items() for name, bounds in each.items()}


def _baselines(groups: Sequence[Group], task: str, variant: str) -> Iterator[Row]:
    """Rows of original or retrained models.

    Groups share a row if, for every seed that both have, this model is the same.
    """
    models: list[tuple[dict[int, tuple[str, Cells]], list[str]]] = []
    spans: dict[tuple[str, int], Intervals] = {}  # {(digest, seed): intervals}
    for group in groups:
        by_seed = {
            run.seed: (
                run.results["digests"]["weights"].get(variant, ""),
                _cells(run, task, variant),
            )
            for run in group.runs
            if variant in run.results["tasks"].get(task, {})
        }
        if not by_seed:
            continue
        for run in group.runs:
            if run.seed in by_seed:
                spans[by_seed[run.seed][0], run.seed] = _intervals(run, task, variant)
        for model, owners in models:
            if all(_same(model[seed], by_seed[seed]) for seed in model.keys() & by_seed.keys()):
                for seed, (digest, cells) in by_seed.items():
                    known = model.get(seed, (digest, {}))
                    model[seed] = known[0], cells | known[1]
                owners.append(group.label)
                break
        else:
            models.append((by_seed, [group.label]))
    kind = "retrained" if reference.is_retrained(variant) else variant
    runs = [run for group in groups for run in group.runs]
    unclean = next((run for run in runs if variant in run.results["unclean"]), runs[0])
    name = reference.name(variant, unclean.results)
    for model, owners in models:
        more = f" and {len(owners) - 1} more" if len(owners) > 1 else ""
        label = name if len(models) == 1 else f"{name} of {owners[0]}{more}"
        seeds = tuple(sorted(model))
        intervals = tuple(spans[model[seed][0], seed] for seed in seeds)
        values = tuple(model[seed][1] for seed in seeds)
        yield Row(label, kind, values, seeds, intervals=intervals)


def _same(a: tuple[str, Cells], b: tuple[str, Cells]) -> bool:
    """Whether two measurements can be of one model: (digest of its weights, figures)."""
    shared = a[1].keys() & b[1].keys()
    close = (np.isclose(a[1][k], b[1][k], rtol=MAX_DIFFERENCE, atol=1e-6) for k in shared)
    return a[0] == b[0] and all(close)


def columns(table: Sequence[Row], figures: Figures, sides: Sequence[str] = SIDES) -> list[Column]:
    """Every (side, figure) for which a row has a value."""
    filled = {column for row in table for cells in row.values for column in cells}
    metrics = shown(figures, {metric for _, metric in filled})
    return [(s, m) for s in sides for m in metrics if (s, m) in filled]


def best(table: Sequence[Row], side: str, figure: Mapping[str, Any]) -> float | None:
    """The best mean of a figure among unlearned models.

    On the forget side it is the mean that is closest to the figure of the retrained models. None if
    no direction is good, or if fewer than two models differ.
    """
    column = side, figure["name"]
    compared = [row for row in table if row.kind == "unlearned" and row.mean(column) is not None]
    means = {row.label: _last(row.mean(column)) for row in compared}
    direction = goal(side, figure, has_aim(table, column))
    if len(set(means.values())) < 2 or not direction:
        return None
    if direction == NEAR:
        closest = min(compared, key=lambda row: _last(row.distance(column)))
        return means[closest.label]
    return max(means.values()) if direction == "up" else min(means.values())


def has_aim(table: Sequence[Row], column: Column) -> bool:
    """Whether any model is compared with a retrained model in a column."""
    return any(column in row.aim for row in table)


def reading(table: Sequence[Row], figures: Figures) -> list[str]:
    """Sentences: what is best on the forget side, how rows are ordered, what is over-forgotten."""
    wanted = [figures[metric] for side, metric in columns(table, figures) if side == "forget"]
    if not any(row.kind == "unlearned" for row in table) or not wanted:
        return []
    column = headline(table, figures)
    if column is None:
        return [reference.NO_BEST]
    sentences = [
        reference.CLOSEST,
        "Unlearned models are in the order of their distance to it, in "
        f"{column[0]} {figures[column[1]]['title']}.",
    ]
    over = {row.label: [f["title"] for f in wanted if row.over(f)] for row in table}
    listed = "; ".join(
        f"{label} in {', '.join(titles)}" for label, titles in over.items() if titles
    )
    return [*sentences, f"{reference.EXPLANATION} Here: {listed or 'none'}."]
