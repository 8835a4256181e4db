"""Many runs on one page: groups of seeds side by side, and whether they may be compared at all."""

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, unknown
from l2l_jax.report import grids, judges, page, tables, tradeoff
from l2l_jax.report.collect import Record
from l2l_jax.report.groups import Group, grouped
from l2l_jax.report.metrics import APART, in_order

PLOTS = {"fid": "FID", "psnr": "PSNR"}
LISTED = 6  # runs or groups that are named before "and N more"


def write(
    runs: Mapping[Path, Record], left_out: Mapping[Path, str], out: Path | None = None
) -> Path:
    """Writes the page that compares these runs; by default into the folder above all of them."""
    out = out or common_folder(list(runs)) / "report.html"
    with files.replacing(out) as file:
        file.write(compared(list(runs.values()), left_out).encode())
    return out


def common_folder(workdirs: Sequence[Path]) -> Path:
    """The innermost folder that holds all of them. ConfigError if that is the root."""
    folder = Path(os.path.commonpath([os.path.abspath(workdir.parent) for workdir in workdirs]))
    if folder == folder.parent:
        raise ConfigError(
            "These runs lie in no common folder: say where the page goes, --out FILE."
        )
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def write_plot(runs: Sequence[Record], out: Path) -> Path:
    """Saves the first plot as PNG. ConfigError if there is too little to plot."""
    groups = grouped(runs)
    figure = tradeoff.draw(tables.rows(groups, _tasks(groups)[0]), next(iter(PLOTS)))
    if figure is None:
        raise ConfigError("Nothing to plot: fewer than two models have a FID on both sides.")
    with files.replacing(out) as file:
        file.write(tradeoff.png(figure))
    return out


def markdown(runs: Sequence[Record], metrics: Sequence[str]) -> str:
    """The tables of the page as GitHub markdown, with these metrics, or all if none is named.

    ConfigError for one that no run has.
    """
    groups = grouped(runs)
    found = {task: tables.rows(groups, task) for task in _tasks(groups)}
    there = in_order(metric for rows in found.values() for _, metric in tables.columns(rows))
    for metric in metrics:
        if metric not in there:
            raise unknown("metric", metric, there)
    parts = []
    for task, rows in found.items():
        title = f"**{task}**\n\n" if len(found) > 1 else ""
        parts.append(title + tables.figures_markdown(rows, metrics or there, _untrained(runs)))
    return "\n".join(parts)


def _untrained(runs: Sequence[Record]) -> set[str]:
    """Figures that some run had measured by networks nobody trained."""
    return set().union(*(judges.untrained(run.results) for run in runs))


def compared(runs: Sequence[Record], left_out: Mapping[Path, str]) -> str:
    """The whole page as text."""
    groups = grouped(runs)
    title = f"{len(runs)} run{'s' * (len(runs) > 1)} compared"
    body = [f"<h1>{title}</h1>", *_left_out(left_out), *_unfinished(runs), *_ended(groups)]
    said = dict.fromkeys(text for run in runs for text in judges.warnings(run.results))
    body += [f'<div class="card warn">{html.escape(text)}</div>' for text in said]
    body += [*_differences(groups), *_plots(groups), "<h2>Figures</h2>"]
    for task in _tasks(groups):
        table = tables.figures_html(tables.rows(groups, task), _untrained(runs))
        body += [f"<h3>{html.escape(task)}</h3>", table]
    body += [*_explained(groups), "<h2>Cost</h2>", tables.costs_html(groups)]
    body.append(
        "<p>Means over seeds; the largest peak of memory, of the process or of its device. Phases "
        "that were taken over from another run count with what they cost there.</p>"
    )
    body += [*_pictures(groups), *_about(groups)]
    return page.document(title, "\n".join(body))


def _tasks(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(t for g in groups for run in g.runs for t in run.results["tasks"]))


def _explained(groups: Sequence[Group]) -> Iterator[str]:
    seeds = max(len(group.runs) for group in groups)
    over = (
        "Means over seeds, and &plusmn; their standard deviation (n &minus; 1). A seed also draws "
        "the masks, so that one original measured with several seeds varies too. "
    )
    found = [column for t in _tasks(groups) for column in tables.columns(tables.rows(groups, t))]
    apart = APART + " " if any(metric == "retrain_distance" for _, metric in found) else ""
    yield (
        f"<p>{over if seeds > 1 else ''}An arrow shows the direction that is good for a side; "
        "green is the best of a column among models that forgot. FID, Inception Score and cosine "
        f"are those of the runs' judge. {apart}</p>"
    )


def _card(said: str, items: Sequence[str]) -> str:
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f'<div class="card warn">{said}<ul>{listed}</ul></div>'


def _left_out(left_out: Mapping[Path, str]) -> Iterator[str]:
    if left_out:
        items = [f"{html.escape(str(k))}: {html.escape(why)}" for k, why in left_out.items()]
        yield _card("Left out, for they are no evaluated runs:", items)


def _unfinished(runs: Sequence[Record]) -> Iterator[str]:
    items = [
        f"{html.escape(run.name)}: {html.escape(phase)} was at step {done:,} of {total:,}"
        for run in runs
        for phase, (done, total) in run.unfinished.items()
    ]
    if items:
        yield _card("Not finished when they were evaluated:", items)


def _ended(groups: Sequence[Group]) -> Iterator[str]:
    """Phases that did not reach what they were to end at."""
    items = [
        f"{html.escape(run.name)}: {html.escape(text)}"
        for group in groups
        for run in group.runs
        for text in (run.results.get("ended") or {}).values()
        if text.startswith(page.MISSED)
    ]
    if items:
        yield _card("Did not get where they were to end:", items)


def _differences(groups: Sequence[Group]) -> Iterator[str]:
    """What has to be the same for two figures to be compared, and is not."""
    runs = [run for group in groups for run in group.runs]
    conditions = [(run.name, _conditions(run)) for run in runs]
    for what in conditions[0][1]:
        yield from _difference(what, [(name, each[what]) for name, each in conditions])
    for seed in sorted({run.seed for run in runs}):
        alike = [run for run in runs if run.seed == seed]
        digests = [(r.name, r.results["digests"]["weights"].get("original", "")) for r in alike]
        where = f" with seed {seed}" if len({run.seed for run in runs}) > 1 else ""
        yield from _difference(f"the originals{where}", digests)
    # of an original or a retrained model the seeds of all runs that name it count
    found = [row for task in _tasks(groups)[:1] for row in tables.rows(groups, task)]
    seeds = [(row.label, ", ".join(map(str, row.seeds))) for row in found]
    yield from _difference("the seeds, and with them the masks,", seeds)


def _difference(what: str, values: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A warning if the values (name, value) are not all the same; empty ones do not count."""
    names: dict[str, list[str]] = {}
    for name, value in values:
        if value:
            names.setdefault(value, []).append(name)
    if len(names) > 1:
        items = [
            f"{html.escape(_listed(some))}: <code>{html.escape(value[:40])}</code>"
            for value, some in names.items()
        ]
        yield _card(f"Not measured alike: {what} differ", items)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _conditions(run: Record) -> dict[str, str]:
    tasks = run.config["evaluate"]["tasks"]
    return {
        "the judges": ", ".join(
            f"{name} {network['digest'][:8]}" for name, network in run.results["networks"].items()
        ),
        "the images": str([(n, s["digest"]) for n, s in run.splits.items() if n.endswith("_eval")]),
        "the masks": str([run.config["tasks"][task] for task in tasks]),
        "the ways to complete": run.results["sampling"],
    }


def _plots(groups: Sequence[Group]) -> Iterator[str]:
    """The trade-off between the sides under the first task."""
    task = _tasks(groups)[0]
    found = tables.rows(groups, task)
    drawings = {name: tradeoff.drawing(found, metric) for metric, name in PLOTS.items()}
    if not any(drawings.values()):
        return
    yield f"<h2>What forgetting costs, {html.escape(task)}</h2>"
    for name, drawing in drawings.items():
        if drawing:
            yield f'<h3>{name}, keeping against forgetting</h3><div class="card">{drawing}</div>'
    bars = (
        "Bars are standard deviations over seeds. " if any(len(g.runs) > 1 for g in groups) else ""
    )
    retrained = (
        "Far from the original is not the same as like the retrained model: a model that forgets "
        "completes these images as the retrained one does, not as badly as possible, and beyond "
        "the retrained model more is not better. "
        if any(row.kind == "retrained" for row in found)
        else ""
    )
    yield (
        "<p>The pale band is the Pareto front: of the models on it none is beaten by another one "
        "on both sides; original and retrained models do not take part. A thin line joins runs "
        f"that differ in one number, which stands beside them. {bars}{retrained}</p>"
    )


def _pictures(groups: Sequence[Group]) -> Iterator[str]:
    """The grids of the first task: in one sheet if all show the same images."""
    task = _tasks(groups)[0]
    yield f"<h2>Completions, {html.escape(task)}</h2>"
    telling = [group for group in groups if group.unlearned] or groups
    shown = {group.label: grids.shown_run(group, telling) for group in groups}
    for side in ("forget", "retain"):
        name, title = f"{task}_{side}", f"images to {page.VERBS[side]}"
        runs = {label: run for label, run in shown.items() if name in run.images}
        sheets = {label: grids.strips(run, name) for label, run in runs.items()}
        one = grids.together(sheets, [g.label for g in telling])
        if one:
            labels, png = one
            seeds = dict.fromkeys(str(runs[g.label].seed) for g in telling if g.label in runs)
            yield f"<h3>{title} (seed {', '.join(seeds)})</h3>"
            yield page.grid(png, labels, f"Grid of {side} images under the task {task}")
        else:
            for label, run in runs.items():
                yield from page.picture(run, task, side, f"{label}: {title}")


def _about(groups: Sequence[Group]) -> Iterator[str]:
    yield '<h2>Runs</h2><div class="card"><dl>'
    for group in groups:
        first = group.runs[0]
        phases = ", then ".join(
            f"{first.config[phase]['method']} with {first.config[phase]['solver']}, "
            f"{_steps(group, phase)} of {first.config[phase]['steps']:,} steps"
            for phase in first.config["phases"]
        )
        seeds = ", ".join(map(str, group.seeds))
        about = f"; {group.about}" if group.about else ""
        yield (
            f"<dt>{html.escape(group.label)}</dt><dd>{html.escape(phases + about)}; seed {seeds}: "
            f"{html.escape(', '.join(run.name for run in group.runs))}</dd>"
        )
    yield "</dl></div>"


def _steps(group: Group, phase: str) -> str:
    """How far the runs of a group came, as one number or from the least to the most."""
    done = [run.results.get("steps", {}).get(phase, [None])[0] for run in group.runs]
    if None in done:
        return "?"
    low, high = min(done), max(done)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
