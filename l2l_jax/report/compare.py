"""Several runs on one page: their figures side by side, and whether they may be compared at all."""

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from l2l_jax.lib import files
from l2l_jax.report import page
from l2l_jax.report.collect import Record, collect
from l2l_jax.report.page import ARROWS, METRICS, OPPOSITE

Row = tuple[str, Mapping[str, Mapping[str, float]]]  # label, {side: {metric: value}}


def write(workdirs: Sequence[Path], out: Path) -> Path:
    """Writes the page that compares these runs; returns its path."""
    names = [folder.name for folder in workdirs]
    unique = len(set(names)) == len(names)
    runs = {name if unique else str(w): collect(w) for name, w in zip(names, workdirs, strict=True)}
    with files.replacing(out) as file:
        file.write(compared(runs).encode())
    return out


def compared(runs: Mapping[str, Record]) -> str:
    """The whole page as text; runs by the name they have on it."""
    title = f"{len(runs)} runs compared"
    body = [f"<h1>{title}</h1>", *_head(runs), *_differences(runs), "<h2>Figures</h2>"]
    tasks = dict.fromkeys(task for run in runs.values() for task in run.results["tasks"])
    for task in tasks:
        body += [f"<h3>{html.escape(task)}</h3>", _table(runs, task)]
    body.append(
        "<p>An arrow shows the direction that is good for a side; green is the best run of a "
        "column. FID, Inception Score and cosine are those of the runs' judge.</p>"
    )
    return page.document(title, "\n".join([*body, *_pictures(runs, next(iter(tasks)))]))


def _head(runs: Mapping[str, Record]) -> Iterator[str]:
    yield '<div class="card"><dl>'
    for name, run in runs.items():
        phases = ", then ".join(
            f"{run.config[phase]['method']} with {run.config[phase]['solver']}, "
            f"{run.results['steps'][phase][0]:,} of {run.config[phase]['steps']:,} steps"
            for phase in run.config["phases"]
        )
        seconds = sum(run.results["seconds"].values())
        yield (
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(phases)}; {seconds:,.0f} s on "
            f"{html.escape(run.versions['devices'])}</dd>"
        )
    yield "</dl></div>"


def _differences(runs: Mapping[str, Record]) -> Iterator[str]:
    """What has to be the same for two figures to be compared, and is not."""
    conditions = {name: _conditions(run) for name, run in runs.items()}
    for what in next(iter(conditions.values())):
        values = {name: about[what] for name, about in conditions.items() if about[what]}
        if len(set(values.values())) > 1:
            listed = "".join(
                f"<li>{html.escape(name)}: <code>{html.escape(value[:40])}</code></li>"
                for name, value in values.items()
            )
            yield f'<div class="card warn">Not measured alike: {what} differ<ul>{listed}</ul></div>'


def _conditions(run: Record) -> dict[str, str]:
    tasks = run.config["evaluate"]["tasks"]
    weights = run.results["digests"]["weights"]
    return {
        "the judges": run.results["features"]["digest"],
        "the images": str([(n, s["digest"]) for n, s in run.splits.items() if n.endswith("_eval")]),
        "the masks": str([run.config["tasks"][task] for task in tasks] + [run.config["seed"]]),
        "the originals": weights.get("original", ""),  # a retrained model has none
    }


def _table(runs: Mapping[str, Record], task: str) -> str:
    rows, results = _rows(runs, task)
    columns = [
        (side, metric)
        for side in ("retain", "forget")
        for metric in METRICS
        if any(metric in cells.get(side, {}) for _, cells in rows + results)
    ]
    sides = [side for side, _ in columns]
    head = "".join(
        f'<th colspan="{sides.count(side)}" class="side {side}">{side}</th>'
        for side in dict.fromkeys(sides)
    )
    second = "".join(
        f"<th>{METRICS[metric][0]} {ARROWS[_goal(side, metric)]}</th>" for side, metric in columns
    )
    best = {column: _best(results, *column) for column in columns}
    body = []
    for label, cells in rows + results:
        numbers = []
        for side, metric in columns:
            value = cells.get(side, {}).get(metric)
            good = (label, cells) in results and value is not None and value == best[side, metric]
            kind = ' class="good"' if good else ""
            numbers.append(f"<td{kind}>{page.number(value, METRICS[metric][3])}</td>")
        body.append(f"<tr><td>{html.escape(label)}</td>{''.join(numbers)}</tr>")
    return (
        f'<div class="card scroll"><table><thead><tr><th></th>{head}</tr>'
        f"<tr><th></th>{second}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _rows(runs: Mapping[str, Record], task: str) -> tuple[list[Row], list[Row]]:
    """(originals, results); an original that several runs share stands there once."""
    found: list[tuple[str, Any]] = []
    results: list[Row] = []
    for name, run in runs.items():
        for variant, cells in run.results["tasks"].get(task, {}).items():
            if variant != "original":
                results.append((f"{name}: {variant}", cells))
            elif cells not in [there for _, there in found]:
                found.append((name, cells))
    one = len(found) == 1
    return [("original" if one else f"{name}: original", cells) for name, cells in found], results


def _goal(side: str, metric: str) -> str:
    good = METRICS[metric][2]
    return good if side == "retain" else OPPOSITE[good]


def _best(results: Sequence[Row], side: str, metric: str) -> float | None:
    """The best value of a column, if there is something to choose from."""
    found = [cells.get(side, {}).get(metric) for _, cells in results]
    values = [value for value in found if value is not None]
    if len(values) < 2:
        return None
    return max(values) if _goal(side, metric) == "up" else min(values)


def _pictures(runs: Mapping[str, Record], task: str) -> Iterator[str]:
    yield f"<h2>Completions, {html.escape(task)}</h2>"
    for side in ("forget", "retain"):
        for name, run in runs.items():
            yield from page.picture(run, task, side, f"{name}: images to {page.VERBS[side]}")
