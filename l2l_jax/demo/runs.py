"""What the demo shows of runs: their models, examples of their images, verdicts and pages."""

import dataclasses
import html
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from l2l_jax import api
from l2l_jax.data import images as pictures
from l2l_jax.explore.html import completions, data_url
from l2l_jax.lib import config_dicts
from l2l_jax.lib.errors import DataMissing
from l2l_jax.loaded import Model, Models
from l2l_jax.report import audits, page, verdict
from l2l_jax.report.collect import Record, collect_all

log = logging.getLogger(__name__)

EXAMPLES = 10  # images of each side to choose from
NOT_ATTACKED = "Nobody attacked the result, so nobody knows whether the forgetting holds."


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run with its models."""

    record: Record
    models: Mapping[str, Model]

    @property
    def size(self) -> int:
        """Height and width of its images in pixels."""
        return next(iter(self.models.values())).image_size

    @property
    def verdict(self) -> str:
        """What its audits allow to say, in sentences."""
        if "unlearned" not in self.record.variants:
            return ""
        found = audits.of(self.record)
        return " ".join(verdict.verdict(found).titles) if found else NOT_ATTACKED


@dataclasses.dataclass(frozen=True)
class Example:
    """An image to choose: uint8 [S, S, 3], and what it is, in words."""

    image: UInt8[np.ndarray, "S S 3"]
    title: str


def opened(folders: Sequence[Path], partial: bool = False) -> list[Run]:
    """The runs in these workdirs. ConfigError if one is not evaluated, or not finished."""
    runs = []
    records, left_out = collect_all(folders)
    for folder, reason in left_out.items():
        log.warning("left out: %s: %s", folder, reason)
    for folder, record in records.items():
        loaded = api.load(folder, partial=partial)
        runs.append(Run(record, loaded if isinstance(loaded, Models) else {"original": loaded}))
    return runs


def examples(runs: Sequence[Run]) -> tuple[list[Example], str]:
    """(images of the first run to choose from, why some are not there).

    Held-out images to forget come first. Images of a list to forget are not among them.
    """
    models, config = runs[0].models, runs[0].record.config
    found: list[Example] = []
    if not isinstance(models, Models):
        return found, "This run has no images to compare; upload one."
    withheld = any(config_dicts.withholds_forgotten(run.record.config) for run in runs)
    notes = []
    for side, verb in (("forget", "to forget"), ("retain", "to keep")):
        if side == "forget" and withheld:
            notes.append("Images that somebody listed to be forgotten are not shown.")
            continue
        try:
            images, titles = models.images(f"{side}_eval", EXAMPLES)
        except DataMissing as error:
            return found, f"{error} Until then, upload an image."
        found += [Example(i, f"{t}, {verb}") for i, t in zip(images, titles, strict=True)]
    return found, " ".join([*notes, f"Held-out images of {config['data']['name']}."])


def chooser(found: Sequence[Example]) -> str:
    """HTML: a button for each example."""
    buttons = "".join(
        f'<button type="button" data-at="{at}" title="{html.escape(each.title)}">'
        f'<img alt="{html.escape(each.title)}" src="{data_url(each.image)}"></button>'
        for at, each in enumerate(found)
    )
    return f'<div class="l2l-chooser">{buttons}</div>'


def decoded(content: bytes) -> UInt8[np.ndarray, "S S 3"]:
    """The central square of an uploaded image. BrokenImage, with the reason, if it is none."""
    image = pictures.decode(content, "The upload")
    return pictures.resize_crop(image, min(image.shape[:2]))


def compared(
    runs: Sequence[Run], image: UInt8[np.ndarray, "S S 3"], hidden: Bool[np.ndarray, "P P"]
) -> str:
    """HTML: each run's completions of an image, with the run's verdict. A mask of any size."""
    parts = []
    for run in runs:
        fitted = next(iter(run.models.values())).fit(image)
        mask = np.asarray(
            Image.fromarray(hidden).resize((run.size, run.size), Image.Resampling.BOX)
        )
        parts.append(
            f'<section class="l2l-run"><h3>{html.escape(run.record.name)}</h3>'
            f"{completions(run.models, fitted, mask)}<p>{html.escape(run.verdict)}</p></section>"
        )
    return "".join(parts)


def report(run: Run) -> str:
    """HTML: the whole page of a run, in a frame that can neither leave it nor reach this page."""
    name = html.escape(run.record.name)
    return (
        f'<iframe title="The page of {name}" sandbox="allow-scripts" '
        f'style="width:100%;height:80vh;border:0" srcdoc="{html.escape(page.page(run.record))}">'
        "</iframe>"
    )
