"""What a page says about retrained models: names, marks, what they were trained on, their floor.

On the forget side no figure is good in itself: a model that completes these images as badly as it
can was damaged. With a retrained model the closest figure to its figure is best. A figure beyond
it, on the side away from the original, is over-forgotten.
"""

import html
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from l2l_jax.report.collect import Record
from l2l_jax.report.metrics import DASH, shown

MARK = "\N{DAGGER}"  # behind a figure that is over-forgotten
OVER = "over-forgotten"
UNCLEAN = "not clean"
MIN_EXCESS = 0.01  # relative to the retrained model's figure; a smaller excess has no mark
NO_BEST = (
    "No figure of the forget side is marked as the best: without a retrained model nobody knows "
    "how badly a model should complete these images, and the worst completion is not the best "
    "forgetting. Name one with config.reference."
)
CLOSEST = (
    "On the forget side the figure closest to that of the retrained model is best "
    "(\N{ALMOST EQUAL TO})."
)
EXPLANATION = (
    f"{MARK} {OVER}: beyond the retrained model's figure, on the side away from the original, by "
    "more than one percent and by more than retrained models differ from each other."
)


def is_retrained(variant: str) -> bool:
    """Whether a variant is one of the retrained models: "retrained", "retrained_2", ..."""
    return variant.startswith("retrained")


def name(variant: str, results: Mapping[str, Any]) -> str:
    """A variant for people, such as "retrained 2 (not clean)"."""
    text = variant.replace("_", " ")
    return f"{text} ({UNCLEAN})" if variant in results["unclean"] else text


def over_forgotten(
    value: float | None, original: float | None, retrained: float | None, floor: float = 0.0
) -> bool:
    """Whether a figure lies beyond the retrained model's, on the side away from the original.

    By more than MIN_EXCESS of that figure, and by more than `floor`.
    """
    if value is None or original is None or retrained is None:
        return False
    excess = (value - retrained) * (1 if retrained > original else -1)
    return retrained != original and excess > max(MIN_EXCESS * abs(retrained), floor)


def aim(figures: Sequence[float]) -> tuple[float | None, float]:
    """(mean over retrained models, mean difference between two of them) of one figure of theirs."""
    if not figures:
        return None, 0.0
    pairs = [abs(a - b) for a, b in itertools.combinations(figures, 2)]
    return statistics.fmean(figures), statistics.fmean(pairs) if pairs else 0.0


def aim_of(cells: Mapping[str, Any], side: str, figure: str) -> tuple[float | None, float]:
    """The aim of one figure; cells: {variant: {side: {figure: value}}}, as results["tasks"]."""
    values = (cells[v].get(side, {}).get(figure) for v in cells if is_retrained(v))
    return aim([value for value in values if value is not None])


def warnings(results: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each retrained model that is not clean."""
    for variant, reasons in results["unclean"].items():
        yield (
            f"{name(variant, results).capitalize()}: {'; '.join(reasons)}. A comparison with it "
            "says less than it seems to."
        )


def training(record: Record) -> Iterator[str]:
    """HTML: what each model was trained on, and how often; and the floor of the figures."""
    trained = record.results["training"]
    if not any(map(is_retrained, trained)):
        return
    rows = []
    for variant, about in trained.items():
        passes, images, steps = about["passes"], about["images"], about["steps"]
        cells = (
            html.escape(name(variant, record.results)),
            html.escape(about["splits"]),
            DASH if images is None else f"{images:,}",
            DASH if passes is None else f"{passes:.2f}",
            DASH if steps is None else f"{steps:,}",
            html.escape(about["tokenizer"]) or DASH,
        )
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = ("", "trained on", "images", "passes of each", "steps", "tokenizer")
    head = "".join(f"<th>{each}</th>" for each in heads)
    yield "<h2>What the models were trained on</h2>"
    yield (
        f'<div class="card scroll words"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    if floor := floors(record):
        yield f"<p>{html.escape(floor)}</p>"


def floors(record: Record) -> str:
    """How far retrained models differ from each other, in words; "" if there are not two."""
    results = record.results
    count = sum(map(is_retrained, results["training"]))
    if count < 2:
        return ""
    cells, figures = results["tasks"][results["task"]], results["figures"]
    measured = {m for v in cells for side in record.sides for m in cells[v][side]}
    parts = []
    for figure in shown(figures, measured):
        title, digits = figures[figure]["title"], figures[figure]["digits"]
        for side in record.sides:
            value, floor = aim_of(cells, side, figure)
            if figures[figure]["good_on_forget"] == "same":
                floor = value  # it is a distance between them already
            if floor is not None:
                parts.append(f"{title} {floor:.{digits}f} ({side})")
    return (
        f"Distances are means over the {count} retrained models. The floor is how far these differ "
        f"from each other under {results['task']}: {', '.join(parts)}. A smaller difference means "
        "nothing."
    )
