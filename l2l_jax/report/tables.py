"""The figures of groups of runs: means and standard deviations, as HTML and as markdown."""

import html
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from l2l_jax.report import reference
from l2l_jax.report.collect import Record
from l2l_jax.report.feature_networks import RANDOM_MARK
from l2l_jax.report.groups import Group
from l2l_jax.report.metrics import (
    ARROWS,
    DASH,
    PLAIN_ARROWS,
    PLAIN_DASH,
    Figures,
    goal,
    interval,
    number,
    pretraining_share,
    si,
)
from l2l_jax.report.model_rows import SIDES, Row, best, columns, has_aim, ordered


def figures_html(
    table: Sequence[Row],
    figures: Figures,
    untrained: Collection[str] = (),
    sides: Sequence[str] = SIDES,
) -> str:
    """The table of a page; the best value of each column is green, and over-forgotten ones marked.

    untrained: names of figures to mark, because their feature network has random weights.
    """
    wanted = columns(table, figures, sides)
    of_side = [side for side, _ in wanted]
    head = "".join(
        f'<th colspan="{of_side.count(side)}" class="side {side.removesuffix("_train")}">'
        f"{side}</th>"
        for side in dict.fromkeys(of_side)
    )
    second = "".join(
        f"<th>{html.escape(_title(figures[metric], untrained))} "
        f"{ARROWS[goal(side, figures[metric], has_aim(table, (side, metric)))]}</th>"
        for side, metric in wanted
    )
    body = []
    for row in ordered(table, figures):
        cells = "".join(
            _cell_html(row, side, figures[metric], best(table, side, figures[metric]))
            for side, metric in wanted
        )
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


def _cell_html(row: Row, side: str, figure: Mapping[str, Any], best_mean: float | None) -> str:
    """One value with its spread; green if it equals the best mean of the column."""
    column, digits = (side, figure["name"]), figure["digits"]
    value, spread = row.mean(column), row.deviation(column)
    good = row.group is not None and value is not None and value == best_mean
    kind = ' class="good"' if good else ""
    details = f" {reference.MARK}" if row.over(figure, side) else ""
    details += "" if spread is None else f" <small>&plusmn; {number(spread, digits)}</small>"
    if bounds := row.interval(column):
        details += f" <small>{interval(bounds, digits)}</small>"
    if 0 < len(row.of(column)) < len(row.seeds):
        details += f" <small>{len(row.of(column))} of {len(row.seeds)} seeds</small>"
    return f"<td{kind}>{number(value, digits)}{details}</td>"


def _title(figure: Mapping[str, Any], untrained: Collection[str]) -> str:
    return figure["title"] + (f" ({RANDOM_MARK})" if figure["name"] in untrained else "")


def figures_markdown(
    table: Sequence[Row],
    names: Collection[str],
    figures: Figures,
    untrained: Collection[str] = (),
) -> str:
    """The columns of these figures as a GitHub table; the best value of each column is bold."""
    wanted = [(side, figures[m]) for side, m in columns(table, figures) if m in names]
    heads = [
        " ".join(
            (
                side,
                _title(figure, untrained),
                PLAIN_ARROWS[goal(side, figure, has_aim(table, (side, figure["name"])))],
            )
        ).rstrip()
        for side, figure in wanted
    ]
    heads = [markdown_text(head) for head in heads]
    lines = [["model", "seeds", *heads], [":--", *["--:"] * (len(wanted) + 1)]]
    for row in ordered(table, figures):
        line = [markdown_text(row.label), str(len(row.seeds))]
        for side, figure in wanted:
            column, digits = (side, figure["name"]), figure["digits"]
            value, spread = row.mean(column), row.deviation(column)
            text = PLAIN_DASH if value is None else f"{value:.{digits}f}"
            if spread is not None:
                text += f" ± {spread:.{digits}f}"
            if bounds := row.interval(column):
                text += f" {interval(bounds, digits)}"
            if row.over(figure, side):
                text += f" {reference.MARK}"
            if 0 < len(row.of(column)) < len(row.seeds):
                text += f" ({len(row.of(column))} of {len(row.seeds)} seeds)"
            good = (
                row.group is not None and value is not None and value == best(table, side, figure)
            )
            line.append(f"**{text}**" if good else text)
        lines.append(line)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown_text(text: str) -> str:
    """The text as it is, in a cell of a GitHub table: no markup, no HTML, no line ends."""
    for character in "\\`*[]|~$":
        text = text.replace(character, f"\\{character}")
    return html.escape(" ".join(text.split()), quote=False)


def costs_html(groups: Sequence[Group]) -> str:
    """The table of costs: means over the seeds of a group, and the largest peak of memory."""
    body = []
    for group in groups:
        training = _mean(group, lambda run: _sum(run, "seconds"))
        evaluation = _mean(group, lambda run: run.results["seconds"].get("evaluate"))
        steps = _mean(group, lambda run: _sum(run, "steps"))
        flops = _mean(group, lambda run: _sum(run, "flops"))
        share = _mean(group, lambda run: pretraining_share(run.results, run.unlearning))
        peaks = [peak for run in group.runs if (peak := _peak(run)) is not None]
        devices = ", ".join(dict.fromkeys(run.versions["devices"] for run in group.runs))
        cells = (
            f"{html.escape(group.label)}{_phases(group)}",
            str(len(group.runs)),
            DASH if training is None else f"{training:,.0f} s",
            DASH if evaluation is None else f"{evaluation:,.0f} s",
            DASH if steps is None else f"{steps:,.0f}",
            si(flops, "FLOP"),
            DASH if share is None else f"{share:.1%}",
            si(max(peaks, default=None), "B"),
            html.escape(devices),
        )
        body.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    names = (
        "seeds",
        "training",
        "evaluation",
        "steps",
        "FLOPs",
        "of pretraining",
        "peak memory",
        "on",
    )
    return _table_html("", f"<th></th>{''.join(f'<th>{name}</th>' for name in names)}", body)


def cost_of(run: Record, phase: str) -> Mapping[str, float]:
    """The cost of a phase: "seconds" and "steps", and "flops" and "memory" if they are known."""
    return run.results["cost"].get(phase, {})


def _sum(run: Record, key: str) -> float | None:
    """The total of a cost over all phases; None if it is unknown for one of them."""
    values = _known([cost_of(run, phase).get(key) for phase in run.config["phases"]])
    return None if values is None else sum(values)


def _peak(run: Record) -> float | None:
    """The largest memory of any phase, in bytes; None if it is unknown for one with steps."""
    trained = [phase for phase in run.config["phases"] if cost_of(run, phase).get("steps") != 0]
    values = _known([cost_of(run, phase).get("memory") for phase in trained])
    return max(values) if values else None


def _mean(group: Group, value_of: Callable[[Record], float | None]) -> float | None:
    """The mean of a value over the runs of a group; None if it is unknown for one of them."""
    values = _known([value_of(run) for run in group.runs])
    return None if values is None else statistics.fmean(values)


def _known(values: Sequence[float | None]) -> list[float] | None:
    """The values; None if one of them is None."""
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def _phases(group: Group) -> str:
    """HTML: the seconds of each phase; "" if there is one phase."""
    phases = group.runs[0].config["phases"]
    if len(phases) < 2:
        return ""
    parts = []
    for phase in phases:
        seconds = _mean(group, lambda run, phase=phase: cost_of(run, phase).get("seconds"))
        if seconds is not None:
            parts.append(f"{html.escape(phase)} {seconds:,.0f} s")
    return f" <small>{' + '.join(parts)}</small>"
