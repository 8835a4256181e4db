"""Several runs on one page: a row for each group of seeds, and warnings if runs do not compare."""

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.report import (
    audit_columns,
    feature_networks,
    grids,
    model_rows,
    page,
    pictures,
    reference,
    sets,
    tables,
    tradeoff,
)
from l2l_jax.report.collect import Record
from l2l_jax.report.document import document
from l2l_jax.report.groups import Group, grouped
from l2l_jax.report.metrics import Figures, any_interval, merged, notes, shown
from l2l_jax.report.model_rows import Row
from l2l_jax.report.run_table import INTERVALS

PLOTTED = ("fid", "psnr")  # figures that have a plot; the first one can be saved as PNG
AUDITS = "audits"  # in a list of figures: the table of the audits
MAX_NAMES = 6  # runs or groups that are named before "and N more"


def write(
    runs: Mapping[Path, Record], left_out: Mapping[Path, str], out: Path | None = None
) -> Path:
    """Writes the page that compares these runs; by default into the folder above all of them."""
    out = out or common_folder(list(runs)) / "report.html"
    text = compared(list(runs.values()), left_out)
    with files.atomic_write(out) as file:
        file.write(text.encode())
    return out


def common_folder(workdirs: Sequence[Path]) -> Path:
    """The innermost folder that holds all of them. ConfigError if that is the root."""
    folder = Path(os.path.commonpath([os.path.abspath(workdir.parent) for workdir in workdirs]))
    if folder == folder.parent:
        raise ConfigError(
            "These runs have no common folder. Choose where to write the page: --out FILE."
        )
    current = Path.cwd()
    return folder.relative_to(current) if folder.is_relative_to(current) else folder


def write_plot(runs: Sequence[Record], out: Path) -> Path:
    """Saves the plot of the FID as PNG. ConfigError if fewer than two models have one."""
    groups, figure = grouped(runs), merged(runs).get(PLOTTED[0])
    plot = tradeoff.draw(model_rows.rows(groups, _tasks(groups)[0]), figure) if figure else None
    if plot is None:
        raise ConfigError("Nothing to plot: fewer than two models have a FID on both sides.")
    image = tradeoff.png(plot)
    with files.atomic_write(out) as file:
        file.write(image)
    return out


def markdown(runs: Sequence[Record], metrics: Sequence[str]) -> str:
    """The tables of the page as GitHub markdown, with these figures, or all if none is named.

    "audits" names the table of the audits. ConfigError if no run has a figure of this name.
    """
    groups, figures = grouped(runs), merged(runs)
    by_task = {task: model_rows.rows(groups, task) for task in _tasks(groups)}
    known = shown(figures, _measured(groups))
    chosen = [metric for metric in metrics if metric != AUDITS]
    for metric in chosen:
        if metric not in known:
            raise unknown_name("metric", metric, [*known, AUDITS])
    parts = []
    for task, rows in by_task.items() if chosen or not metrics else ():
        title = f"**{tables.markdown_text(task)}**\n\n" if len(by_task) > 1 else ""
        table = tables.figures_markdown(rows, chosen or known, figures, _untrained(runs))
        sentences = model_rows.reading(rows, figures)
        parts.append(title + table + (f"\n{' '.join(sentences)}\n" if sentences else ""))
    if AUDITS in metrics or not metrics:
        audited = audit_columns.markdown(groups)
        parts += [f"**{audit_columns.TITLE}**\n\n{audited}"] if audited else []
    return "\n".join(parts)


def _untrained(runs: Sequence[Record]) -> set[str]:
    """Figures that any of the runs measured with a network of random weights."""
    return set().union(*(feature_networks.untrained(run.results) for run in runs))


def _measured(groups: Sequence[Group]) -> set[str]:
    """Figures that any of the runs has a value for."""
    rows = (row for task in _tasks(groups) for row in model_rows.rows(groups, task))
    return {metric for row in rows for cells in row.values for _, metric in cells}


def compared(runs: Sequence[Record], left_out: Mapping[Path, str]) -> str:
    """The whole page as text."""
    groups, figures = grouped(runs), merged(runs)
    title = f"{len(runs)} run{'s' * (len(runs) > 1)} compared"
    body = [f"<h1>{title}</h1>", *_left_out(left_out), *_unfinished(runs), *_ended(groups)]
    warnings = [text for run in runs for text in feature_networks.warnings(run.results)]
    warnings += [text for run in runs for text in reference.warnings(run.results)]
    body += [
        f'<div class="card warn">{html.escape(text)}</div>' for text in dict.fromkeys(warnings)
    ]
    body += [*_differences(groups), *_plots(groups, figures)]
    body += [*audit_columns.section(groups), "<h2>Figures</h2>"]
    for task in _tasks(groups):
        rows = model_rows.rows(groups, task)
        table = tables.figures_html(rows, figures, _untrained(runs))
        reading = html.escape(" ".join(model_rows.reading(rows, figures)))
        body += [f"<h3>{html.escape(task)}</h3>", table, f"<p>{reading}</p>" if reading else ""]
        if task == _tasks(groups)[0]:
            body += _beside(runs, rows, figures)
    body += [_explanation(groups, figures), "<h2>Cost</h2>", tables.costs_html(groups)]
    body.append(
        "<p>Means over seeds; the largest peak of memory, of the process or of its device. Of "
        "pretraining: the FLOPs of the phases that unlearn over those of the original's training, "
        "where it is known on how many images. The "
        "cost of a phase that was reused from another run is its cost in that run.</p>"
    )
    body += [*_pictures(groups), *_described(groups)]
    return document(title, "\n".join(body))


def _beside(runs: Sequence[Record], rows: Sequence[Row], figures: Figures) -> Iterator[str]:
    """HTML: training images beside held-out ones, with what each set of images is."""
    for found in dict.fromkeys(filter(None, (sets.pair(run.results) for run in runs))):
        yield f"<h3>{found[0]} beside {found[1]}</h3>"
        yield tables.figures_html(rows, figures, _untrained(runs), found)
        yield f"<p>{html.escape(sets.REASONS[found[0]])}</p>"
    described = dict.fromkeys(text for run in runs for text in sets.sentences(run.results))
    yield f"<p>{html.escape(' '.join(described))}</p>"


def _tasks(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(t for g in groups for run in g.runs for t in run.results["tasks"]))


def _explanation(groups: Sequence[Group], figures: Figures) -> str:
    """HTML: how to read the tables."""
    measured = _measured(groups)
    by_network = {
        metric
        for group in groups
        for run in group.runs
        for metric, how in run.results["measured"].items()
        if "network" in how and metric in measured
    }
    sentences = []
    if max(len(group.runs) for group in groups) > 1:
        sentences.append(
            "Means over seeds, and &plusmn; their standard deviation (n &minus; 1). A seed also "
            "decides the masks, so that one original evaluated with several seeds varies, too."
        )
    if any(any_interval(run.results) for group in groups for run in group.runs):
        sentences.append(html.escape(f"{INTERVALS} They stand at models of a single seed."))
    sentences.append(
        "An arrow shows the direction that is good; green is the best of a column among unlearned "
        "models."
    )
    if titles := [figures[metric]["title"] for metric in shown(figures, by_network)]:
        listed = html.escape(", ".join(titles))
        sentences.append(f"Measured with the feature networks of the runs: {listed}.")
    sentences.append(html.escape(notes(figures, measured)))
    return f"<p>{' '.join(filter(None, sentences))}</p>"


def _card(title: str, items: Sequence[str]) -> str:
    """HTML: a warning with a list. title and items: HTML."""
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f'<div class="card warn">{title}<ul>{listed}</ul></div>'


def _left_out(left_out: Mapping[Path, str]) -> Iterator[str]:
    if left_out:
        items = [f"{html.escape(str(k))}: {html.escape(why)}" for k, why in left_out.items()]
        yield _card("Left out, because they hold no evaluated run:", items)


def _unfinished(runs: Sequence[Record]) -> Iterator[str]:
    items = [
        f"{html.escape(run.name)}: {html.escape(phase)} was at step {done:,} of {total:,}"
        for run in runs
        for phase, (done, total) in run.unfinished.items()
    ]
    if items:
        yield _card("Not finished when they were evaluated:", items)


def _ended(groups: Sequence[Group]) -> Iterator[str]:
    """Phases that did not reach their stopping criterion."""
    items = [
        f"{html.escape(run.name)}: {html.escape(text)}"
        for group in groups
        for run in group.runs
        for text in run.results["ended"].values()
        if text.startswith(page.NOT_REACHED)
    ]
    if items:
        yield _card("Did not reach their stopping criterion:", items)


def _differences(groups: Sequence[Group]) -> Iterator[str]:
    """Warnings about conditions that must be equal if figures are to be compared, and are not."""
    runs = [run for group in groups for run in group.runs]
    conditions = [(run.name, _conditions(run)) for run in runs]
    for condition in conditions[0][1]:
        yield from _difference(condition, [(name, each[condition]) for name, each in conditions])
    for seed in sorted({run.seed for run in runs}):
        of_seed = [run for run in runs if run.seed == seed]
        digests = [(r.name, r.results["digests"]["weights"].get("original", "")) for r in of_seed]
        where = f" with seed {seed}" if len({run.seed for run in runs}) > 1 else ""
        yield from _difference(f"the originals{where}", digests)
        retrained = [(r.name, _retrained_digests(r)) for r in of_seed]
        yield from _difference(f"the retrained models{where}", retrained)
    for audit, arguments in audit_columns.arguments(runs):
        yield from _difference(f"the arguments of the audit {html.escape(audit)}", arguments)
    # An original or a retrained model has the seeds of all runs that evaluated it.
    rows = model_rows.rows(groups, _tasks(groups)[0])
    seeds = [(row.label, ", ".join(map(str, row.seeds))) for row in rows]
    yield from _difference("the seeds, and with them the masks,", seeds)


def _retrained_digests(run: Record) -> str:
    """The digests of a run's retrained models as text; "" if it has none, or trains one itself."""
    weights = run.results["digests"]["weights"]
    if "unlearned" not in weights:
        return ""
    return ", ".join(weights[v] for v in weights if reference.is_retrained(v))


def _difference(condition: str, values: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A warning if the values, [(name, value)], are not all equal; "" is equal to any."""
    names: dict[str, list[str]] = {}
    for name, value in values:
        if value:
            names.setdefault(value, []).append(name)
    if len(names) > 1:
        items = [
            f"{html.escape(_listed(having))}: <code>{html.escape(value[:40])}</code>"
            for value, having in names.items()
        ]
        yield _card(f"Not measured under equal conditions: {condition} differ", items)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _conditions(run: Record) -> dict[str, str]:
    """{condition: value as text} of conditions that must be equal if figures are compared."""
    tasks = run.config["evaluate"]["tasks"]
    return {
        "the feature networks": ", ".join(
            f"{name} {network['digest'][:8]}" for name, network in run.results["networks"].items()
        ),
        "the images": str([(n, s["digest"]) for n, s in run.splits.items() if n.endswith("_eval")]),
        "the masks": str([run.config["tasks"][task] for task in tasks]),
        "the sampling methods": run.results["sampling"],
    }


def _plots(groups: Sequence[Group], figures: Figures) -> Iterator[str]:
    """The trade-off between the sides under the first task."""
    task = _tasks(groups)[0]
    rows = model_rows.rows(groups, task)
    described = [figures[metric] for metric in PLOTTED if metric in figures]
    drawings = {figure["title"]: tradeoff.drawing(rows, figure) for figure in described}
    if not any(drawings.values()):
        return
    yield f"<h2>What forgetting costs, {html.escape(task)}</h2>"
    for title, drawing in drawings.items():
        if drawing:
            yield f"<h3>{html.escape(title)}: retain against forget</h3>"
            yield f'<div class="card">{drawing}</div>'
    bars = (
        "Bars are standard deviations over seeds. " if any(len(g.runs) > 1 for g in groups) else ""
    )
    if any(row.aim for row in rows):
        front = (
            "The pale band is the Pareto front of the unlearned models: no other one is better on "
            "the retain side without being further from the retrained model on the forget side. "
            "The broken line is the retrained model's forget figure. Far from the original is not "
            "the same as like the retrained model: in the red area, beyond it, models are "
            f"over-forgotten, and so marked ({reference.MARK}). "
        )
    else:
        front = (
            "There is no Pareto front: without a retrained model, no direction is good on the "
            "forget side. "
        )
    yield (
        f"<p>{front}A thin line joins runs that differ in one number, which is written beside "
        f"them. {bars}</p>"
    )


def _pictures(groups: Sequence[Group]) -> Iterator[str]:
    """The grids of the first task, combined into one if all show the same images."""
    task = _tasks(groups)[0]
    yield f"<h2>Completions, {html.escape(task)}</h2>"
    needed = [group for group in groups if group.unlearned] or groups
    examples = {group.label: grids.example_run(group, needed) for group in groups}
    for side in ("forget", "retain"):
        name, title = f"{task}_{side}", f"images to {pictures.VERBS[side]}"
        runs = {label: run for label, run in examples.items() if name in run.images}
        strips = {label: grids.strips(run, name) for label, run in runs.items()}
        combined = grids.combined(strips, [group.label for group in needed])
        if combined:
            labels, png = combined
            seeds = dict.fromkeys(str(runs[g.label].seed) for g in needed if g.label in runs)
            yield f"<h3>{title} (seed {', '.join(seeds)})</h3>"
            names = pictures.classes(next(iter(runs.values())), side)
            yield pictures.grid(png, labels, f"{task}: {title}", names)
        else:
            for label, run in runs.items():
                yield from pictures.of_task(run, task, side, f"{label}: {title}")


def _described(groups: Sequence[Group]) -> Iterator[str]:
    """A list of all groups: methods, solvers, steps, seeds and runs."""
    yield '<h2>Runs</h2><div class="card"><dl>'
    for group in groups:
        first = group.runs[0]
        phases = ", then ".join(
            f"{first.config[phase]['method']} with {first.config[phase]['solver']}, "
            f"{_steps(group, phase)} of {first.config[phase]['steps']:,} steps"
            for phase in first.config["phases"]
        )
        seeds = ", ".join(map(str, group.seeds))
        settings = f"{phases}; {group.differences}" if group.differences else phases
        names = ", ".join(run.name for run in group.runs)
        yield (
            f"<dt>{html.escape(group.label)}</dt><dd>{html.escape(settings)}; seed {seeds}: "
            f"{html.escape(names)}</dd>"
        )
    yield "</dl></div>"


def _steps(group: Group, phase: str) -> str:
    """The steps that the runs of a group did, as text: one number or a range."""
    done = [run.results["steps"][phase][0] for run in group.runs]
    low, high = min(done), max(done)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
