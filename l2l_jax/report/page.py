"""report.html: one run on one self-contained page, to be sent to a colleague.

Everything on it is read from the workdir. It opens from disk and loads nothing from elsewhere: its
Content-Security-Policy permits styles, pictures and the one script inside the page. collect.py
checks the form of all files, and every text from them is escaped here.
"""

import hashlib
import html
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from l2l_jax.lib import config_dicts, files
from l2l_jax.report import (
    answers,
    audits,
    class_table,
    drawings,
    feature_networks,
    guarantee,
    pictures,
    reference,
    run_table,
    sets,
    titles,
)
from l2l_jax.report.collect import Record, collect
from l2l_jax.report.document import document
from l2l_jax.report.groups import written
from l2l_jax.report.metrics import cost_text, pretraining_share
from l2l_jax.report.pictures import VERBS
from l2l_jax.workdir.layout import Workdir

NOT_REACHED = (
    "not reached"  # in results["ended"], the text of a phase that missed its aim begins so
)
DIGEST = "<!-- SHA-256 of all above: {} -->\n"  # what a page ends with
MAX_CLASSES = 24  # that are named for each side
MAX_BROKEN = 20  # broken images that are named for each split


def write(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of a workdir to `out`, by default its report.html; returns the path."""
    path, text = out or Workdir(folder).report, text_of(folder)
    with files.atomic_write(path) as file:
        file.write(text.encode())
    return path


def text_of(folder: Path) -> str:
    """The page of a workdir as it is written, with its digest."""
    return with_digest(page(collect(folder)))


def with_digest(text: str) -> str:
    """A page as it is written: the text, and at its end the digest that `is_intact` compares."""
    return text + DIGEST.format(_digest(text))


def is_intact(path: Path) -> bool:
    """Whether a page fits the digest at its end."""
    try:
        content = path.read_bytes().decode()
    except (OSError, ValueError):
        return False
    text = content[: -len(DIGEST.format(_digest("")))]
    return content == with_digest(text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def page(record: Record) -> str:
    """The whole page as text."""
    sections = (
        _head,
        _tiles,
        audits.card,
        _warnings,
        audits.lines,
        _pictures,
        _tables,
        class_table.tables,
        answers.table,
        guarantee.card,
        audits.details,
        reference.training,
        _tokenizer,
        _curves,
        _tsne,
        _provenance,
    )
    body = "\n".join(text for section in sections for text in section(record))
    return document(f"{record.name}: {_headline(record)}", body)


def _head(record: Record) -> Iterator[str]:
    config, classes = record.config, record.results["classes"]
    data = html.escape(titles.of_data(config["data"]["name"]))
    yield f"<h1>{html.escape(_headline(record))}</h1>"
    if "forget_eval" not in classes:
        return
    methods = ", then ".join(html.escape(config[phase]["method"]) for phase in config["phases"])
    yield (
        f'<p class="lead">Method: {methods}. Data: {data}. Evaluated on '
        f"{', '.join(_evaluated_on(record))}; the same images, crops and masks for every model.</p>"
    )
    for side, verb in VERBS.items():
        names = classes.get(f"{side}_eval", [])
        chips = "".join(f"<i>{html.escape(name)}</i>" for name in names[:MAX_CLASSES])
        hidden = len(names) - MAX_CLASSES
        more = f"<em>and {hidden} more</em>" if hidden > 0 else ""
        yield f'<div class="chips {side}"><em>to {verb}</em>{chips}{more}</div>'


def _headline(record: Record) -> str:
    """What the page shows, as a title: "What a small masked autoencoder forgot"."""
    model, variants = titles.of_model(record.config["model"]), record.variants
    if "unlearned" in variants:
        return f"What {model} forgot"
    first = model[:1].upper() + model[1:]
    if "forget_eval" not in record.results["classes"]:
        return f"{first} trained on {titles.of_data(record.config['data']['name'])}"
    if "retrained" in record.results["unclean"]:
        return f"{first} retrained without what is to be forgotten, but not clean"
    if "retrained" in variants:
        return f"{first} that never saw what is to be forgotten"
    return f"{first} that knows what is to be forgotten"


def _evaluated_on(record: Record) -> Iterator[str]:
    """For each side: how many images, and whether the model was trained on them."""
    for side in record.sides:
        count = record.results["counts"][side]
        listed = record.splits[f"{side}_eval"]["part"] == "train"  # none of them is held out
        trained = listed and side in record.results["trained_on"]
        how = "that were trained on" if trained else "that were not trained on"
        yield html.escape(f"{count:,} {side} images {how}")


def _tiles(record: Record) -> Iterator[str]:
    """The three figures that answer whether the model forgot the one side and kept the other.

    With a retrained model the tile of the forget side says what that model's figure is.
    """
    if "unlearned" not in record.variants:
        return
    old, new = record.headline["original"], record.headline["unlearned"]
    untrained = feature_networks.untrained(record.results)
    tiles = []
    for side, metric, claim in (
        ("forget", "fid", "the original's FID, completing images to forget"),
        ("retain", "fid", "in FID, completing images to keep"),
        ("retain", "psnr", "on hidden pixels, completing images to keep"),
    ):
        figure = record.results["figures"].get(metric)
        a, b = old.get(side, {}).get(metric), new.get(side, {}).get(metric)
        if figure is None or a is None or b is None or metric in untrained:
            continue
        if metric == "psnr":
            value = f"{b - a:+.2f} dB"
        elif a == 0:
            value = "from zero"
        else:
            value = f"{b / a:.1f}&times;" if side == "forget" else f"{b / a - 1:+.1%}"
        title, unit, digits = html.escape(figure["title"]), figure["unit"], figure["digits"]
        detail = f"{title} {a:.{digits}f} &rarr; {b:.{digits}f} {html.escape(unit)}".rstrip()
        aim, floor = reference.aim_of(record.headline, side, metric)
        if side == "forget" and aim is not None:
            detail += f"; retrained {aim:.{digits}f}"
            if reference.over_forgotten(b, a, aim, floor):
                detail += f" {reference.MARK} {reference.OVER}"
        tiles.append(
            f'<div class="tile {side}"><span>{side}</span><b>{value}</b>'
            f"<span>{claim}<br>{detail}</span></div>"
        )
    yield f'<div class="tiles">{"".join(tiles)}</div>'


def _warnings(record: Record) -> Iterator[str]:
    """What a reader must know before reading the figures."""
    for phase, (done, total) in record.unfinished.items():
        yield (
            f'<div class="card warn">Not finished: the phase {html.escape(phase)} was at step '
            f"{done:,} of {total:,} when this was evaluated.</div>"
        )
    texts = (*feature_networks.warnings(record.results), *reference.warnings(record.results))
    for text in texts:
        yield f'<div class="card warn">{html.escape(text)}</div>'
    for text in record.results["ended"].values():
        if text.startswith(NOT_REACHED):
            yield f'<div class="card warn">{_sentence(text)}</div>'
    for side, wanted in record.config["split"].items():
        held_out = record.splits.get(f"{side}_eval", {"part": ""})
        listed = isinstance(wanted, Mapping) and wanted["files"]
        if side in VERBS and listed and held_out["part"] == "eval":
            yield (
                f'<div class="card warn">Of the images listed to {VERBS[side]}, '
                f"{held_out['count']:,} are held out: they are evaluated, and not trained on.</div>"
            )
    for name, split in record.splits.items():
        if split["skipped"]:
            reasons = split["skipped"][:MAX_BROKEN]
            listed = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
            title = html.escape(f"Broken images of {name}, left out: {len(split['skipped'])}")
            yield f'<div class="card warn">{title}<ul>{listed}</ul></div>'
    if "unlearned" in record.variants:
        variants = (record.headline["original"], record.headline["unlearned"])
        old, new = (variant.get("retain", {}).get("l1") for variant in variants)
        if old and new and new > 2 * old:
            yield (
                '<div class="card warn">The error on retain images more than doubled: this model '
                "was damaged, not only made to forget.</div>"
            )


def _sentence(text: str) -> str:
    """HTML: the text with a capital letter and a full stop."""
    return html.escape(text[:1].upper() + text[1:].rstrip(".")) + "."


def _pictures(record: Record) -> Iterator[str]:
    withheld = "forget" in record.sides and config_dicts.withholds_forgotten(record.config)
    if record.images or withheld:
        yield "<h2>Completions</h2>"
    if withheld:
        yield f"<p>{html.escape(pictures.WITHHELD)}</p>"
    for task in record.results["tasks"]:
        for side in reversed(record.sides):
            title = f"{task}: images to {VERBS[side]}"
            yield from pictures.of_task(record, task, side, title)


def _tables(record: Record) -> Iterator[str]:
    yield "<h2>Figures</h2>"
    for task in record.results["tasks"]:
        yield f"<h3>{html.escape(task)}</h3>"
        yield from run_table.tables(record, task)
    yield from sets.beside(record)
    yield f"<p>{html.escape(' '.join(sets.sentences(record.results)))}</p>"
    if reading := run_table.reading(record):
        yield f"<p>{html.escape(reading)}</p>"
    yield feature_networks.paragraph(record.results)


def _tokenizer(record: Record) -> Iterator[str]:
    """How well the tokenizer of a token model reproduces images."""
    sides = record.results["tokenizer"]
    if not sides:
        return
    yield "<h2>The tokenizer</h2>"
    for side, measured in sides.items():
        png = record.images.get(f"tokenizer_{side}")
        yield (
            f"<p>Whole {html.escape(side)} images, tokenised and decoded: "
            f"{measured['psnr']:.2f} dB PSNR, "
            f"{measured['codebook_usage']:.0%} of the codes in use, perplexity "
            f"{measured['codebook_perplexity']:.0f}.</p>"
        )
        if png is not None:
            title = f"whole {side} images and their decoded tokens"
            names = pictures.classes(record, side)
            yield pictures.grid(png, ["image", "decoded"], title, names)
    margin = record.config["model"]["args"].get("margin", 0)
    if margin:
        yield (
            f"<p>When it completes an image, the model does not see the tokens up to "
            f"{html.escape(str(margin))} "
            "from the hole either.</p>"
        )
    cache = record.config["data"].get("token_cache", {})
    if views := cache.get("views"):
        yield (
            f"<p>Training saw each image as {views} augmented view"
            f"{'s' * (views > 1)} (K), tokenised before training.</p>"
        )


def _curves(record: Record) -> Iterator[str]:
    yield "<h2>Training</h2>"
    for phase in record.config["phases"]:
        if record.results["steps"][phase] == [0, 0]:
            settings = record.config[phase]
            given = ", ".join(f"{k} {written(v)}" for k, v in settings.get("args", {}).items())
            name, method = html.escape(phase), html.escape(settings["method"])
            yield f"<h3>{name}: {method}, takes no step</h3><p>{html.escape(given)}</p>"
        if any(r["phase"] == phase for r in record.metrics):
            settings, drawn = record.config[phase], drawings.curves(record.metrics, phase)
            yield (
                f"<h3>{html.escape(phase)}: {html.escape(settings['method'])}, "
                f"{settings['steps']:,} steps of {settings['batch_size']} images a side</h3>"
            )
            text = record.results["ended"].get(phase, "")
            if text and not text.startswith(NOT_REACHED):
                yield f"<p>{_sentence(text)}</p>"
            yield (
                f'<div class="card">{drawn}</div>' if drawn else "<p>Both objectives are zero.</p>"
            )


def _tsne(record: Record) -> Iterator[str]:
    if record.tsne:
        task = html.escape(record.tsne["task"])
        yield (
            f"<h2>Where the completions lie</h2><p>t-SNE of the completions' features "
            f"({task}); one layout for all models, the points of the others in grey. Distances in "
            "such a picture are not measurements.</p>"
            f'<div class="card">{drawings.scatter(record.tsne)}</div>'
        )


def _provenance(record: Record) -> Iterator[str]:
    results = record.results
    spent = ((name, v) for name, v in results["seconds"].items() if v is not None)
    seconds = ", ".join(f"{html.escape(name)} {v:,.0f} s" for name, v in spent)
    items = {"run": html.escape(record.name), "time": seconds}
    for phase, cost in results["cost"].items():
        items[f"cost, {html.escape(phase)}"] = cost_text(cost)
    if (share := pretraining_share(results, record.unlearning)) is not None:
        items["cost of unlearning"] = f"{share:.1%} of the FLOPs of the original's training"
    for phase, sides in results["passes"].items():
        if not sides:
            continue
        seen = (
            f"{x['images']:,} {x['split']} images {x['passes']:.2f} times" for x in sides.values()
        )
        items[f"seen, {html.escape(phase)}"] = html.escape(f"{', '.join(seen)} each, on average")
    launches = [record.versions, *record.versions["continued_with"]]
    for turn, launch in enumerate(launches, 1):
        name = "launched with" if len(launches) == 1 else f"launch {turn}"
        git = html.escape(launch["git"] or "no repository")
        items[name] = (
            f"{html.escape(launch['devices'])}, code "
            f"<code>{html.escape(launch['code'][:16])}</code>, commit <code>{git}</code>"
        )
    items["evaluated with"] = f"code <code>{html.escape(results['digests']['code'][:16])}</code>"
    if results["sampling"]:
        items["completed by"] = html.escape(results["sampling"])
    for variant, digest in results["digests"]["weights"].items():
        description = html.escape(results["evaluated"].get(variant, ""))
        comma = ", " if description else ""
        code = f"<code>{html.escape(digest)}</code>"
        items[f"weights, {html.escape(variant)}"] = f"{description}{comma}{code}"
    for name, split in record.splits.items():
        unused = "" if "eval" in name or name in results["trained_on"] else ", not trained on"
        items[f"split, {html.escape(name)}"] = (
            f"{split['count']:,} images of the {html.escape(split['part'])} part, "
            f"{len(split['classes'])} classes, "
            f"<code>{html.escape(split['digest'][:32])}</code>{unused}"
        )
    listed = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in items.items())
    packages = html.escape(json.dumps(record.versions["packages"], indent=1))
    config = html.escape(json.dumps(record.config, indent=1))
    yield (
        f'<h2>Provenance</h2><div class="card"><dl>{listed}</dl></div>'
        f"<details><summary>Packages</summary><pre>{packages}</pre></details>"
        f"<details><summary>Config</summary><pre>{config}</pre></details>"
    )
