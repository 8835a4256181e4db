"""report.html: one run on one self-contained page, to be sent to a colleague.

Every figure on it is read from the run folder; it opens from disk and asks the network for nothing.
"""

import base64
import html
import json
from collections.abc import Iterator
from pathlib import Path
from string import Template

from l2l_jax.lib import files
from l2l_jax.report import figures, judges
from l2l_jax.report.collect import Record, collect
from l2l_jax.report.metrics import ARROWS, DASH, describe, goal, in_order, number, spent

VERBS = {"forget": "forget", "retain": "keep"}
MISSED = "not reached"  # how the text of a phase begins that did not get to its end
SLIGHT = 0.01  # a change of less than one percent is neither good nor bad


def write(workdir: Path, out: Path | None = None) -> Path:
    """Writes the page of a run, workdir/report.html unless told otherwise; returns its path."""
    path = out or workdir / "report.html"
    with files.replacing(path) as file:
        file.write(page(collect(workdir)).encode())
    return path


def page(record: Record) -> str:
    """The whole page as text."""
    sections = (
        _head,
        _tiles,
        _warnings,
        _pictures,
        _tables,
        _tokenizer,
        _curves,
        _tsne,
        _provenance,
    )
    body = "\n".join(text for section in sections for text in section(record))
    return document(f"{record.name}: what the model forgot", body)


def document(title: str, body: str) -> str:
    """An HTML file from a title (text) and a body (HTML)."""
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), body=body)


def _head(record: Record) -> Iterator[str]:
    config, classes = record.config, record.results["classes"]
    model, data = _model(record), html.escape(config["data"]["name"])
    if "forget_eval" not in classes:
        yield f"<h1>A {model} trained on {data}</h1>"
        return
    if "unlearned" in record.results:
        yield f"<h1>What a {model} forgot</h1>"
    elif "retrained" in record.results:
        yield f"<h1>A {model} that never saw what is to be forgotten</h1>"
    else:
        yield f"<h1>A {model} that knows what is to be forgotten</h1>"
    methods = ", then ".join(html.escape(config[phase]["method"]) for phase in config["phases"])
    yield (
        f'<p class="lead">Method: {methods}. Data: {data}. Judged on '
        f"{', '.join(_judged_on(record))}; the same images, crops and masks for every model.</p>"
    )
    for side, verb in VERBS.items():
        names = classes.get(f"{side}_eval", [])
        chips = "".join(f"<i>{html.escape(name)}</i>" for name in names[:24])
        more = f"<em>and {len(names) - 24} more</em>" if len(names) > 24 else ""
        yield f'<div class="chips {side}"><em>to {verb}</em>{chips}{more}</div>'


def _judged_on(record: Record) -> Iterator[str]:
    for side, count in record.results["counts"].items():
        listed = record.splits[f"{side}_eval"]["part"] == "train"  # none of them is held out
        trained = listed and side in record.results["trained_on"]
        how = "that were trained on" if trained else "that were not trained on"
        yield f"{count:,} {side} images {how}"


def _model(record: Record) -> str:
    args = record.config["model"]["args"]
    about = f" ({args['size']})" if "size" in args else ""
    name = record.config["model"]["name"]
    return html.escape((name.upper() if len(name) < 6 else name) + about)  # abbreviations are short


def _tiles(record: Record) -> Iterator[str]:
    """The three figures that answer the question."""
    if "unlearned" not in record.results:
        return
    old, new = record.results["original"], record.results["unlearned"]
    tiles = []
    for side, metric, claim in (
        ("forget", "fid", "the original's FID, completing images to forget"),
        ("retain", "fid", "in FID, completing images to keep"),
        ("retain", "psnr", "on hidden pixels, completing images to keep"),
    ):
        there = metric in old.get(side, {}) and metric in new[side]
        if not there or metric in judges.untrained(record.results):
            continue
        a, b = old[side][metric], new[side][metric]
        if metric == "psnr":
            value = f"{b - a:+.2f} dB"
        elif a == 0:
            value = "from zero"
        else:
            value = f"{b / a:.1f}&times;" if side == "forget" else f"{b / a - 1:+.1%}"
        name, unit, _, digits = describe(metric)
        detail = f"{name} {a:.{digits}f} &rarr; {b:.{digits}f} {unit}"
        tiles.append(
            f'<div class="tile {side}"><span>{side}</span><b>{value}</b>'
            f"<span>{claim}<br>{detail}</span></div>"
        )
    yield f'<div class="tiles">{"".join(tiles)}</div>'


def _warnings(record: Record) -> Iterator[str]:
    """What a reader must not overlook."""
    for phase, (done, total) in record.unfinished.items():
        yield (
            f'<div class="card warn">Not finished: the phase {html.escape(phase)} was at step '
            f"{done:,} of {total:,} when this was evaluated.</div>"
        )
    for text in judges.warnings(record.results):
        yield f'<div class="card warn">{html.escape(text)}</div>'
    for text in (record.results.get("ended") or {}).values():
        if text.startswith(MISSED):
            yield f'<div class="card warn">{_sentence(text)}</div>'
    for side, wanted in record.config["split"].items():
        held = record.splits.get(f"{side}_eval", {"part": ""})
        if side in VERBS and wanted["files"] and held["part"] == "eval":
            yield (
                f'<div class="card warn">Of the images listed to {VERBS[side]}, {held["count"]:,} '
                "are held out: they are judged, and not trained on.</div>"
            )
    for name, split in record.splits.items():
        if split["skipped"]:
            listed = "".join(f"<li>{html.escape(reason)}</li>" for reason in split["skipped"][:20])
            count = len(split["skipped"])
            said = f"Broken images of {name}, left out: {count}"
            yield f'<div class="card warn">{said}<ul>{listed}</ul></div>'
    if "unlearned" in record.results and "retain" in record.sides:
        old, new = (record.results[v]["retain"].get("l1") for v in ("original", "unlearned"))
        if old and new > 2 * old:
            yield (
                '<div class="card warn">The error on retain images more than doubled: this model '
                "was damaged, not only made to forget.</div>"
            )


def _sentence(text: str) -> str:
    return html.escape(text[0].upper() + text[1:].rstrip(".")) + "."


def _pictures(record: Record) -> Iterator[str]:
    if record.images:
        yield "<h2>Completions</h2>"
    for task in record.results["tasks"]:
        for side in reversed(record.sides):
            yield from picture(record, task, side, f"{task}: images to {VERBS[side]}")


def picture(record: Record, task: str, side: str, title: str) -> Iterator[str]:
    """The grid of one task and side under a title, if the run made one."""
    png = record.images.get(f"{task}_{side}")
    if png is not None:
        labels = ["image", "what it sees", *record.variants]
        said = f"Grid of {side} images under the task {task}: {', '.join(labels)}"
        yield f"<h3>{html.escape(title)}</h3>" + grid(png, labels, said)


def grid(png: bytes, labels: list[str], alt: str) -> str:
    """A sheet of pictures with a label for each of its rows."""
    spans = "".join(f"<span>{html.escape(label)}</span>" for label in labels)
    data = base64.b64encode(png).decode()
    return (
        f'<div class="card grid"><div class="rows">{spans}</div>'
        f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}"></div>'
    )


def _tables(record: Record) -> Iterator[str]:
    yield "<h2>Figures</h2>"
    for task, cells in record.results["tasks"].items():
        yield f"<h3>{html.escape(task)}</h3>" + _table(record, cells)
    yield judges.paragraph(record.results)


def _table(record: Record, cells: dict) -> str:
    variants, sides = record.variants, record.sides
    change = "unlearned" in variants
    width = len(variants) + change
    head = "".join(
        f'<th colspan="{width}" class="side {side}">{side} '
        f"(n = {record.results['counts'][side]:,})</th>"
        for side in sides
    )
    at = variants.index("unlearned") if change else 0
    names = [*variants[: at + 1], *(["change"] if change else []), *variants[at + 1 :]]
    second = "".join(f"<th>{name}</th>" for _ in sides for name in names)
    rows = []
    for metric in in_order(m for v in variants for side in sides for m in cells[v][side]):
        name, unit, _, digits = describe(metric)
        told = judges.MARK if metric in judges.untrained(record.results) else unit
        row = [f"<td>{name}{f' <small>{told}</small>' if told else ''}</td>"]
        for side in sides:
            values = [cells[v][side].get(metric) for v in variants]
            told = [f"<td>{number(value, digits)}</td>" for value in values]
            if change:
                good = goal(side, metric)
                told.insert(at + 1, _change(values[0], values[at], good, digits))
            row += told
        rows.append(f"<tr>{''.join(row)}</tr>")
    return (
        f'<div class="card scroll"><table><thead><tr><th></th>{head}</tr>'
        f"<tr><th></th>{second}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _change(old: float | None, new: float | None, good: str, digits: int) -> str:
    if old is None or new is None:
        return f"<td>{DASH}</td>"
    delta = round(new - old, digits) + 0.0  # no minus zero
    kind = "same" if abs(delta) <= SLIGHT * abs(old) or not good else "bad"
    if kind == "bad" and (delta > 0) == (good == "up"):
        kind = "good"
    way = f" <small>good {ARROWS[good]}</small>" if good else ""
    return f'<td class="{kind}">{delta:+.{digits}f}{way}</td>'


def _tokenizer(record: Record) -> Iterator[str]:
    """What the model sees images as, if not as pixels."""
    found = record.results.get("tokenizer")
    if not found:
        return
    yield "<h2>The tokenizer</h2>"
    for side, about in found.items():
        png = record.images.get(f"tokenizer_{side}")
        yield (
            f"<p>Whole {side} images, tokenised and decoded: {about['psnr']:.2f} dB PSNR, "
            f"{about['codebook_usage']:.0%} of the codes in use, perplexity "
            f"{about['codebook_perplexity']:.0f}.</p>"
        )
        if png is not None:
            yield grid(png, ["image", "decoded"], f"Whole {side} images and their decoded tokens")
    margin = record.config["model"]["args"].get("margin", 0)
    if margin:
        yield (
            f"<p>When it completes an image, the model does not see the tokens up to {margin} "
            "from the hole either.</p>"
        )
    cache = record.config["data"]["token_cache"]
    if cache["views"]:
        yield (
            f"<p>Training saw each image as {cache['views']} augmented view"
            f"{'s' * (cache['views'] > 1)} (K), tokenised beforehand.</p>"
        )


def _curves(record: Record) -> Iterator[str]:
    yield "<h2>Training</h2>"
    for phase in record.config["phases"]:
        if any(r["phase"] == phase for r in record.metrics):
            settings, drawn = record.config[phase], figures.curves(record.metrics, phase)
            yield (
                f"<h3>{html.escape(phase)}: {html.escape(settings['method'])}, "
                f"{settings['steps']:,} steps of {settings['batch_size']} images a side</h3>"
            )
            text = (record.results.get("ended") or {}).get(phase, "")
            if text and not text.startswith(MISSED):
                yield f"<p>{_sentence(text)}</p>"
            yield (
                f'<div class="card">{drawn}</div>' if drawn else "<p>Both objectives are zero.</p>"
            )


def _tsne(record: Record) -> Iterator[str]:
    if record.tsne:
        task = html.escape(record.tsne["task"])
        yield (
            f"<h2>Where the completions lie</h2><p>t-SNE of the judge's embeddings of completions "
            f"({task}); one layout for both models, the other model's points in grey. Distances in "
            "such a picture are not measurements.</p>"
            f'<div class="card">{figures.scatter(record.tsne)}</div>'
        )


def _provenance(record: Record) -> Iterator[str]:
    results = record.results
    seconds = ", ".join(f"{html.escape(k)} {v:,.0f} s" for k, v in results["seconds"].items())
    items = {"run": html.escape(record.name), "time": seconds}
    for phase, about in (results.get("cost") or {}).items():
        items[f"cost, {html.escape(phase)}"] = spent(about)
    for phase, sides in results["passes"].items():
        seen = (
            f"{x['images']:,} {x['split']} images {x['passes']:.2f} times" for x in sides.values()
        )
        items[f"seen, {html.escape(phase)}"] = f"{', '.join(seen)} each, on average"
    launches = [record.versions, *record.versions["continued_with"]]
    for turn, launch in enumerate(launches, 1):
        name = "launched with" if len(launches) == 1 else f"launch {turn}"
        git = html.escape(launch["git"] or "no repository")
        items[name] = (
            f"{html.escape(launch['devices'])}, code <code>{launch['code'][:16]}</code>, "
            f"commit <code>{git}</code>"
        )
    items["evaluated with"] = f"code <code>{results['digests']['code'][:16]}</code>"
    if results["sampling"]:
        items["completed by"] = html.escape(results["sampling"])
    for variant, digest in results["digests"]["weights"].items():
        told = html.escape(results["evaluated"].get(variant, ""))
        items[f"weights, {variant}"] = f"{told}{', ' if told else ''}<code>{digest}</code>"
    for name, split in record.splits.items():
        unused = "" if "eval" in name or name in results["trained_on"] else ", not trained on"
        items[f"split, {html.escape(name)}"] = (
            f"{split['count']:,} images of the {split['part']} part, "
            f"{len(split['classes'])} classes, <code>{split['digest'][:32]}</code>{unused}"
        )
    listed = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in items.items())
    packages = html.escape(json.dumps(record.versions["packages"], indent=1))
    config = html.escape(json.dumps(record.config, indent=1))
    yield (
        f'<h2>Provenance</h2><div class="card"><dl>{listed}</dl></div>'
        f"<details><summary>Packages</summary><pre>{packages}</pre></details>"
        f"<details><summary>Config</summary><pre>{config}</pre></details>"
    )
