"""The figures of groups of runs: means and standard deviations, as HTML and as markdown."""

import dataclasses
import html
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from l2l_jax.report.collect import Record
from l2l_jax.report.groups import Group
from l2l_jax.report.judges import MARK
from l2l_jax.report.metrics import (
    ARROWS,
    DASH,
    PLAIN_ARROWS,
    PLAIN_DASH,
    base,
    describe,
    goal,
    in_order,
    number,
    si,
)

Column = tuple[str, str]  # side, metric
Cells = dict[Column, float]
SAME = 0.01  # relative: how far apart two measurements of the same thing may lie


@dataclasses.dataclass(frozen=True)
class Row:
    """One model of a table, over the seeds it was measured with."""

    label: str
    kind: str  # "original", "retrained" or "unlearned"
    values: tuple[Cells, ...]  # one for each seed
    seeds: tuple[int, ...]
    group: Group | None = None  # of an unlearned model

    def of(self, column: Column) -> list[float]:
        """The values of a column; seeds that have none are left out."""
        return [cells[column] for cells in self.values if column in cells]

    def mean(self, column: Column) -> float | None:
        return statistics.fmean(self.of(column)) if self.of(column) else None

    def deviation(self, column: Column) -> float | None:
        """The standard deviation over seeds (n - 1), if there is more than one."""
        return statistics.stdev(self.of(column)) if len(self.of(column)) > 1 else None


def rows(groups: Sequence[Group], task: str) -> list[Row]:
    """Originals, then retrained models, then what each group's runs unlearned."""
    found = [*_baselines(groups, task, "original"), *_baselines(groups, task, "retrained")]
    for group in groups:
        runs = [run for run in group.runs if "unlearned" in run.results["tasks"].get(task, {})]
        if runs:
            values = tuple(_cells(run, task, "unlearned") for run in runs)
            seeds = tuple(run.seed for run in runs)
            found.append(Row(group.label, "unlearned", values, seeds, group))
    return found


def _cells(run: Record, task: str, variant: str) -> Cells:
    sides = run.results["tasks"][task][variant]
    return {
        (side, metric): value
        for side, figures in sides.items()
        for metric, value in figures.items()
        if base(metric) and value is not None
    }


def _baselines(groups: Sequence[Group], task: str, variant: str) -> Iterator[Row]:
    """One row for all groups that had the same such model wherever they had the same seed."""
    found: list[tuple[dict[int, tuple[str, Cells]], list[str]]] = []
    for group in groups:
        mine = {
            run.seed: (
                run.results["digests"]["weights"].get(variant, ""),
                _cells(run, task, variant),
            )
            for run in group.runs
            if variant in run.results["tasks"].get(task, {})
        }
        if not mine:
            continue
        for there, owners in found:
            if all(_same(there[seed], mine[seed]) for seed in there.keys() & mine.keys()):
                for seed, (digest, cells) in mine.items():
                    known = there.get(seed, (digest, {}))
                    there[seed] = known[0], cells | known[1]
                owners.append(group.label)
                break
        else:
            found.append((mine, [group.label]))
    for there, owners in found:
        more = f" and {len(owners) - 1} more" if len(owners) > 1 else ""
        label = variant if len(found) == 1 else f"{variant} of {owners[0]}{more}"
        seeds = tuple(sorted(there))
        yield Row(label, variant, tuple(there[seed][1] for seed in seeds), seeds)


def _same(a: tuple[str, Cells], b: tuple[str, Cells]) -> bool:
    """Whether two measurements can be of one model: (digest of its weights, figures)."""
    close = (np.isclose(a[1][k], b[1][k], rtol=SAME, atol=1e-6) for k in a[1].keys() & b[1].keys())
    return a[0] == b[0] and all(close)


def columns(found: Sequence[Row]) -> list[Column]:
    """Every side and metric that some row has a value for."""
    there = {column for row in found for cells in row.values for column in cells}
    metrics = in_order(metric for _, metric in there)
    return [(s, m) for s in ("retain", "forget") for m in metrics if (s, m) in there]


def best(found: Sequence[Row], column: Column) -> float | None:
    """The best value of a column among unlearned models, if there are several and one is best."""
    means = [row.mean(column) for row in found if row.kind == "unlearned"]
    values = [value for value in means if value is not None]
    if len(set(values)) < 2 or not (way := goal(*column)):
        return None
    return max(values) if way == "up" else min(values)


def figures_html(found: Sequence[Row], untrained: Collection[str] = ()) -> str:
    """The table of a page; the best value of each column is green. untrained: figures to mark."""
    shown = columns(found)
    sides = [side for side, _ in shown]
    head = "".join(
        f'<th colspan="{sides.count(side)}" class="side {side}">{side}</th>'
        for side in dict.fromkeys(sides)
    )
    second = "".join(f"<th>{_named(c[1], untrained)} {ARROWS[goal(*c)]}</th>" for c in shown)
    top = {column: best(found, column) for column in shown}
    body = []
    for row in found:
        cells = "".join(_cell_html(row, column, top[column]) for column in shown)
        kind = "base" if row.group is None else ""
        body.append(
            f'<tr class="{kind}"><td>{html.escape(row.label)}</td><td>{len(row.seeds)}</td>'
            f"{cells}</tr>"
        )
    return _table_html(f"<th></th><th></th>{head}", f"<th></th><th>seeds</th>{second}", body)


def _table_html(first: str, second: str, body: Sequence[str]) -> str:
    upper = f"<tr>{first}</tr>" if first else ""
    return (
        f'<div class="card scroll compact"><table><thead>{upper}<tr>{second}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell_html(row: Row, column: Column, top: float | None) -> str:
    value, spread = row.mean(column), row.deviation(column)
    good = row.group is not None and value is not None and value == top
    kind = ' class="good"' if good else ""
    digits = describe(column[1])[3]
    about = "" if spread is None else f" <small>&plusmn; {number(spread, digits)}</small>"
    if 0 < len(row.of(column)) < len(row.seeds):
        about += f" <small>{len(row.of(column))} of {len(row.seeds)} seeds</small>"
    return f"<td{kind}>{number(value, digits)}{about}</td>"


def _named(metric: str, untrained: Collection[str]) -> str:
    return describe(metric)[0] + (f" ({MARK})" if metric in untrained else "")


def figures_markdown(
    found: Sequence[Row], metrics: Sequence[str], untrained: Collection[str] = ()
) -> str:
    """These columns of the same table for GitHub; the best value of each is bold."""
    shown = [column for column in columns(found) if column[1] in metrics]
    heads = [
        f"{side} {_named(metric, untrained)} {PLAIN_ARROWS[goal(side, metric)]}".rstrip()
        for side, metric in shown
    ]
    lines = [["model", "seeds", *heads], [":--", *["--:"] * (len(shown) + 1)]]
    top = {column: best(found, column) for column in shown}
    for row in found:
        line = [row.label.replace("|", "\\|"), str(len(row.seeds))]
        for column in shown:
            value, spread, digits = row.mean(column), row.deviation(column), describe(column[1])[3]
            text = PLAIN_DASH if value is None else f"{value:.{digits}f}"
            if spread is not None:
                text += f" ± {spread:.{digits}f}"
            if 0 < len(row.of(column)) < len(row.seeds):
                text += f" ({len(row.of(column))} of {len(row.seeds)} seeds)"
            good = row.group is not None and value is not None and value == top[column]
            line.append(f"**{text}**" if good else text)
        lines.append(line)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def costs_html(groups: Sequence[Group]) -> str:
    """What each group cost: means over its seeds, the largest peak of memory."""
    body = []
    for group in groups:
        trained = _mean(group, lambda run: _sum(run, "seconds"))
        judged = _mean(group, lambda run: run.results["seconds"].get("evaluate"))
        steps = _mean(group, lambda run: _sum(run, "steps"))
        flops = _mean(group, lambda run: _sum(run, "flops"))
        peaks = [peak for run in group.runs if (peak := _peak(run)) is not None]
        devices = ", ".join(dict.fromkeys(run.versions["devices"] for run in group.runs))
        cells = (
            f"{html.escape(group.label)}{_phases(group)}",
            str(len(group.runs)),
            DASH if trained is None else f"{trained:,.0f} s",
            DASH if judged is None else f"{judged:,.0f} s",
            DASH if steps is None else f"{steps:,.0f}",
            si(flops, "FLOP"),
            si(max(peaks, default=None), "B"),
            html.escape(devices),
        )
        body.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    names = ("seeds", "training", "evaluation", "steps", "FLOPs", "peak memory", "on")
    return _table_html("", f"<th></th>{''.join(f'<th>{name}</th>' for name in names)}", body)


def cost_of(run: Record, phase: str) -> Mapping[str, float | None]:
    """What a phase cost; of an older run time and steps at least."""
    older = {
        "seconds": run.results["seconds"].get(phase),
        "steps": run.results.get("steps", {}).get(phase, [None])[0],
    }
    return older | (run.results.get("cost") or {}).get(phase, {})


def _sum(run: Record, what: str) -> float | None:
    """Over all phases; none if one of them is not known."""
    values = [cost_of(run, phase).get(what) for phase in run.config["phases"]]
    return None if None in values else sum(values)


def _peak(run: Record) -> float | None:
    values = [cost_of(run, phase).get("memory") for phase in run.config["phases"]]
    return None if None in values else max(values)


def _mean(group: Group, what: Callable[[Record], float | None]) -> float | None:
    values = [what(run) for run in group.runs]
    return None if None in values else statistics.fmean(values)


def _phases(group: Group) -> str:
    """The time of each phase, if there are several."""
    phases = group.runs[0].config["phases"]
    if len(phases) < 2:
        return ""
    told = []
    for phase in phases:
        seconds = _mean(group, lambda run, phase=phase: cost_of(run, phase).get("seconds"))
        if seconds is not None:
            told.append(f"{html.escape(phase)} {seconds:,.0f} s")
    return f" <small>{' + '.join(told)}</small>"
