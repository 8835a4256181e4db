"""Splits: which images are forgotten, which are retained, and on which the model is evaluated.

A split is a sorted list of image keys with a digest. `make` builds the splits of a run from its
config; workdir/split_files.py stores them. A side is chosen by classes, by a list of keys, by a
seeded draw of classes, or as the rest (class_selection.py). The proxy side may come from another
data set.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.data import class_selection
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Source

SIDES = ("forget", "retain", "proxy")  # in the order in which they draw classes
PARTS = {"train": "", "eval": "_eval"}  # {part: what the names of its splits end with}
CALIBRATION = "calibration"  # the split of held-out images that no evaluation uses
PROXY = "proxy"  # the side, and the part if it comes from another data set


@dataclasses.dataclass(frozen=True)
class Split:
    """Images of one part of a data set, sorted by key."""

    name: str
    part: str  # "train", "eval", or "proxy": the training part of config.data.proxy
    indices: np.ndarray  # [N] int64, rows of the Source of that part, ascending
    keys: tuple[str, ...]
    classes: tuple[str, ...]  # of its images
    skipped: tuple[str, ...] = ()  # why images of it are left out: one message per broken file

    @property
    def digest(self) -> str:
        """SHA-256 of the keys, hexadecimal."""
        return files.digest_of_lines(list(self.keys))


def pick(name: str, part: str, source: Source, indices: np.ndarray, skipped: tuple = ()) -> Split:
    """The split that holds these rows of a source, in any order."""
    indices = np.sort(np.asarray(indices, np.int64))
    classes = tuple([source.classes[label] for label in np.unique(source.labels[indices])])
    keys = tuple([source.keys[int(row)] for row in indices])
    return Split(name, part, indices, keys, classes, skipped)


def make(config: Mapping[str, Any], sources: Mapping[str, Source]) -> dict[str, Split]:
    """{"forget": ..., "retain": ..., "proxy": ..., "forget_eval": ..., "retain_eval": ...}.

    With config.calibration also "calibration". config: config.split, see configs/common.py.
    sources: {"train": ..., "eval": ...}, and "proxy" if the proxy comes from another data set.
    Empty splits are left out; there is no "proxy_eval". ConfigError for overlaps, unknown classes,
    limits that cannot be met, lists that name images which do not exist, and a list to forget that
    is longer than what is retained.
    """
    main = {part: sources[part] for part in PARTS}
    foreign = {PROXY: sources[PROXY]} if PROXY in sources else {}
    sides = tuple(side for side in SIDES if not (foreign and side == PROXY))
    chosen = _choose(config, sides, main, "retain")
    if foreign:
        chosen |= _choose(config, (PROXY,), foreign, PROXY)

    splits, reserved = {}, _reserved(config, sources["eval"])
    if len(reserved):
        splits[CALIBRATION] = pick(CALIBRATION, "eval", sources["eval"], reserved)
    for part, rows in chosen.items():
        for side in rows:
            if part == "eval":
                rows[side] = np.setdiff1d(rows[side], reserved)
            if side == PROXY and part == "eval":
                continue
            name = side + PARTS.get(part, "")
            limited = _limit(rows[side], name, sources[part], config)
            if len(limited):
                splits[name] = pick(name, part, sources[part], limited)
    if "forget" in splits and "forget_eval" not in splits:
        # The forget side is a list of training images: the model is evaluated on the same images.
        splits["forget_eval"] = dataclasses.replace(splits["forget"], name="forget_eval")
    _check_list(config, splits)
    return splits


def _reserved(config: Mapping[str, Any], source: Source) -> np.ndarray:
    """Rows of the held-out part that are set apart: a seeded draw, at most half of every class."""
    rows, labels = np.array([], np.int64), np.asarray(source.labels)
    if count := config["calibration"]:
        rng = np.random.default_rng(seed_of(config["seed"], CALIBRATION))
        drawn = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
        rows = np.concatenate([rows, *(rows[: min(count, len(rows) // 2)] for rows in drawn)])
    return rows


def _check_list(config: Mapping[str, Any], splits: Mapping[str, Split]) -> None:
    """ConfigError if a list of images to forget is longer than the retain side."""
    kept = next((splits[name] for name in ("retain", PROXY) if name in splits), None)
    listed, path = splits.get("forget"), config["forget"]["files"]
    if path and listed and not kept:
        raise ConfigError(
            f"{path} lists {len(listed.keys):,} images to forget, and no training image is left to "
            "keep the model as it is. List fewer, or delete the model."
        )
    if path and listed and kept and len(listed.keys) > len(kept.keys):
        raise ConfigError(
            f"{path} lists {len(listed.keys):,} images to forget, and only {len(kept.keys):,} are "
            f"in {kept.name}: too few to keep the model as it is. List fewer, or retrain without "
            "them."
        )


def training_rows(splits: Mapping[str, Split], part: str) -> np.ndarray:
    """Rows of a part, int64 and ascending, that are in any split for training."""
    rows = [s.indices for name, s in splits.items() if s.part == part and name[-5:] != "_eval"]
    return np.unique(np.concatenate([np.array([], np.int64), *rows]))


def _choose(
    config: Mapping[str, Any], sides: Sequence[str], sources: Mapping[str, Source], default: str
) -> dict[str, dict[str, np.ndarray]]:
    """{part: {side: rows}} of one data set; its first part is the one that is trained on.

    `default` is the side that takes the rest if it has no selection of its own.
    """
    chosen = {part: {} for part in sources}
    labels = class_selection.labels_of_sides(config, sides, next(iter(sources.values())))
    for side in sides:
        path = config[side]["files"]
        of_list = {}
        if path:
            policy = config["missing"]
            of_list = class_selection.rows_of_list(Path(path).expanduser(), sources, policy)
        for part, source in sources.items():
            of_classes = np.flatnonzero(np.isin(source.labels, sorted(labels[side])))
            chosen[part][side] = of_list.get(part, of_classes)
    for part, source in sources.items():
        _take_out(chosen[part], config)
        _check_disjoint(chosen[part], source)
        if side := class_selection.side_taking_rest(config, sides, default):
            taken = np.concatenate(list(chosen[part].values()))
            chosen[part][side] = np.setdiff1d(np.arange(len(source.keys)), taken)
    return chosen


def _take_out(rows: dict[str, np.ndarray], config: Mapping[str, Any]) -> None:
    """Takes the images of a list to forget out of the sides that are chosen by classes."""
    if "forget" in rows and config["forget"]["files"]:
        for side in rows.keys() - {"forget"}:
            if not config[side]["files"]:
                rows[side] = np.setdiff1d(rows[side], rows["forget"])


def _check_disjoint(rows: Mapping[str, np.ndarray], source: Source) -> None:
    """ConfigError if an image is on two sides; rows: {side: rows}."""
    for first, second in itertools.combinations(rows, 2):
        both = np.intersect1d(rows[first], rows[second])
        if len(both):
            classes = sorted({source.classes[source.labels[row]] for row in both})
            raise ConfigError(
                f"split.{first} and split.{second} share {len(both)} images of "
                f"{', '.join(classes[:5])} (first: {source.keys[both[0]]}). An image cannot be on "
                "two sides; remove it from one of them."
            )


def _limit(rows: np.ndarray, name: str, source: Source, config: Mapping[str, Any]) -> np.ndarray:
    """A seeded choice of the rows that respects the limits of the split `name`.

    First at most images_per_class of each class, then `images` in total, evenly over the classes. A
    side that is a list of files has only the limits of that side, not those of all sides.
    """
    side = config[name.removesuffix("_eval")]
    common, per_class, total = "images_per_class", 0, 0
    if name.endswith("_eval"):
        common = "eval_images_per_class"
    else:
        per_class, total = side["images_per_class"], side["images"]
    per_class = per_class or (0 if side["files"] else config[common])
    if not per_class and not total:
        return rows
    rng, labels = np.random.default_rng(seed_of(config["seed"], name)), source.labels[rows]
    drawn = [
        rng.permutation(rows[labels == label])[: per_class or None] for label in np.unique(labels)
    ]
    rows = np.concatenate([rows[:0], *drawn])
    if total > len(rows):
        raise ConfigError(
            f"split.{name}.images={total}, but only {len(rows)} images are there to choose from. "
            "Choose fewer images, or more classes or images per class."
        )
    if not total:
        return rows
    place = np.concatenate([np.arange(len(of_class)) for of_class in drawn])  # within the class
    return rows[np.lexsort((rng.random(len(rows)), place))[:total]]
