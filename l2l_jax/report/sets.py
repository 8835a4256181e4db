"""What a page says about the evaluated images, and training images beside held-out ones."""

import html
from collections.abc import Iterator, Mapping
from typing import Any

from l2l_jax.report import feature_networks, reference
from l2l_jax.report.collect import Record
from l2l_jax.report.metrics import DASH, measured_value, shown

PAIRS = (("forget_train", "forget"), ("retain_train", "forget"))  # sets of the same kind or classes
REASONS = {
    "forget_train": "The gap is the first minus the second. A model that memorised its training "
    "images completes them better than held-out images of the same classes.",
    "retain_train": "The gap is the first minus the second. Both are training "
    "images: forget is compared with them, and not with the held-out retain images.",
}


def pair(results: Mapping[str, Any]) -> tuple[str, str] | None:
    """The two sides that stand beside each other; None if a run has no training images."""
    return next((each for each in PAIRS if set(each) <= results["sets"].keys()), None)


def sentences(results: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for each set of images: what it is, and whether it was trained on."""
    for side, each in results["sets"].items():
        images, of = each["images"], each["of"]
        used = "were trained on" if each["trained_on"] else "were not trained on"
        kind = side.removesuffix("_train")
        if side != kind:
            drawn = f"{images:,} of the {of:,}" if images < of else f"the {images:,}"
            name = "that the model was asked to forget" if kind == "forget" else "to keep"
            yield (
                f"{side}: {drawn} training images {name}{', drawn with the seed' * (images < of)}; "
                f"they {used}."
            )
        elif each["part"] == "train":
            yield f"{side}: the {images:,} listed training images themselves; they {used}."
        else:
            yield f"{side}: {images:,} held-out images; they {used}."


def unequal(results: Mapping[str, Any]) -> str:
    """A warning that two sets beside each other differ in their number of images; "" if not."""
    found = pair(results)
    if not found:
        return ""
    first, second = (results["sets"][side]["images"] for side in found)
    if first == second:
        return ""
    return (
        f"There are {first:,} images of {found[0]} and {second:,} of {found[1]}: FID and Inception "
        "Score depend on the number, so compare the others."
    )


def beside(record: Record) -> Iterator[str]:
    """HTML: the figures of training images beside those of held-out ones, for every variant."""
    results, found = record.results, pair(record.results)
    if not found:
        return
    task, (first, second) = results["task"], found
    cells, figures = results["tasks"][task], results["figures"]
    variants = record.variants
    untrained = feature_networks.untrained(results)
    head = "".join(
        f'<th colspan="3" class="side {second}">{html.escape(reference.name(v, results))}</th>'
        for v in variants
    )
    heads = (first.replace("_", "_<wbr>"), second, "gap")
    second_head = "".join(f"<th>{each}</th>" for each in heads) * len(variants)
    rows = []
    for metric in shown(figures, {m for v in variants for m in cells[v][first]}):
        figure = figures[metric]
        unit = feature_networks.RANDOM_MARK if metric in untrained else html.escape(figure["unit"])
        row = [
            f"<td>{html.escape(figure['title'])}{f' <small>{unit}</small>' if unit else ''}</td>"
        ]
        for variant in variants:
            row += _three(results, (task, variant), (first, second), figure)
        rows.append(f"<tr>{''.join(row)}</tr>")
    yield f"<h3>{html.escape(task)}, {first} beside {second}</h3>"
    yield (
        '<div class="card scroll compact"><table><thead>'
        f"<tr><th></th>{head}</tr><tr><th></th>{second_head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    yield f"<p>{html.escape(' '.join(filter(None, (REASONS[first], unequal(results)))))}</p>"


def _three(
    results: Mapping[str, Any],
    where: tuple[str, str],
    found: tuple[str, str],
    figure: Mapping[str, Any],
) -> list[str]:
    """HTML: the figure of both sides, and the first minus the second; where: (task, variant)."""
    task, variant = where
    values = [results["tasks"][task][variant][side].get(figure["name"]) for side in found]
    texts = [f"<td>{measured_value(results, task, variant, s, figure)}</td>" for s in found]
    if None in values:
        return [*texts, f"<td>{DASH}</td>"]
    delta = round(values[0] - values[1], figure["digits"]) + 0.0
    return [*texts, f"<td>{delta:+.{figure['digits']}f}</td>"]
