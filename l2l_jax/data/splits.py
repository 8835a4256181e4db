"""Splits: which images are forgotten, which are retained, which are looked at afterwards.

A split is a sorted list of keys with a digest. `make` builds the five splits of a run from its
config; workdir/split_files.py stores them. A side is chosen by classes, by a list of files, by a
seeded draw of classes, or as the rest (class_selection.py). A proxy may come from another data set.
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

SIDES = ("forget", "retain", "proxy")  # in the order in which they draw and take
PARTS = {"train": "", "eval": "_eval"}
PROXY = "proxy"  # the part that a proxy from another data set is


@dataclasses.dataclass(frozen=True)
class Split:
    """Some examples of one part of a data set, sorted by key."""

    name: str
    part: str  # "train", "eval", or "proxy": the training part of config.data.proxy
    indices: np.ndarray  # into the Source of that part
    keys: tuple[str, ...]
    classes: tuple[str, ...]  # those it holds examples of
    skipped: tuple[str, ...] = ()  # files left out because they are broken, with the reason

    @property
    def digest(self) -> str:
        return files.digest_of_lines(list(self.keys))


def pick(name: str, part: str, source: Source, indices: np.ndarray, skipped: tuple = ()) -> Split:
    """The split of these rows of a source."""
    indices = np.sort(np.asarray(indices, np.int64))
    classes = tuple(source.classes[i] for i in np.unique(source.labels[indices]))
    return Split(name, part, indices, tuple(source.keys[i] for i in indices), classes, skipped)


def make(config: Mapping[str, Any], sources: Mapping[str, Source]) -> dict[str, Split]:
    """{"forget": ..., "retain": ..., "proxy": ..., "forget_eval": ..., "retain_eval": ...}.

    config: config.split, see configs/common.py; sources: {"train": ..., "eval": ...}, and "proxy"
    if it is another data set. Empty splits are left out; a proxy is trained on and never evaluated.
    ConfigError for overlaps, unknown classes, limits that cannot be met, and lists that name images
    which do not exist.
    """
    own = {part: sources[part] for part in PARTS}
    apart = {PROXY: sources[PROXY]} if PROXY in sources else {}
    here = tuple(side for side in SIDES if not (apart and side == PROXY))
    chosen = _choose(config, here, own, "retain")
    if apart:
        chosen |= _choose(config, (PROXY,), apart, PROXY)

    splits = {}
    for part, rows in chosen.items():
        for side in rows:
            if side == PROXY and part == "eval":
                continue
            name = side + PARTS.get(part, "")
            left = _limit(rows[side], name, sources[part], config)
            if len(left):
                splits[name] = pick(name, part, sources[part], left)
    if "forget" in splits and "forget_eval" not in splits:
        # Single images were listed, none of them held out: what they complete to is the question.
        splits["forget_eval"] = dataclasses.replace(splits["forget"], name="forget_eval")
    return splits


def training_rows(made: Mapping[str, Split], part: str) -> np.ndarray:
    """Rows of a part that some split trains on."""
    trained = [s.indices for name, s in made.items() if s.part == part and name[-5:] != "_eval"]
    return np.unique(np.concatenate([np.array([], np.int64), *trained]))


def _choose(
    config: Mapping[str, Any], sides: Sequence[str], sources: Mapping[str, Source], default: str
) -> dict[str, dict[str, np.ndarray]]:
    """{part: {side: rows}} of one data set; the first of its parts is the one trained on.

    `default` is the side that takes the rest if it says nothing.
    """
    chosen = {part: {} for part in sources}
    classes = class_selection.draw_classes(config, sides, next(iter(sources.values())))
    for side in sides:
        path = config[side]["files"]
        listed = class_selection.listed(Path(path), sources) if path else {}
        for part, source in sources.items():
            by_class = np.flatnonzero(np.isin(source.labels, sorted(classes[side])))
            chosen[part][side] = listed.get(part, by_class)
    for part, source in sources.items():
        _check_disjoint(chosen[part], source)
        if side := class_selection.resting(config, sides, default):
            taken = np.concatenate(list(chosen[part].values()))
            chosen[part][side] = np.setdiff1d(np.arange(len(source.keys)), taken)
    return chosen


def _check_disjoint(rows: Mapping[str, np.ndarray], source: Source) -> None:
    for one, other in itertools.combinations(rows, 2):
        both = np.intersect1d(rows[one], rows[other])
        if len(both):
            classes = sorted({source.classes[source.labels[row]] for row in both})
            raise ConfigError(
                f"split.{one} and split.{other} share {len(both)} images of "
                f"{', '.join(classes[:5])} (first: {source.keys[both[0]]}). An image cannot be on "
                "two sides; take it off one of them."
            )


def _limit(rows: np.ndarray, name: str, source: Source, config: Mapping[str, Any]) -> np.ndarray:
    """Seeded rows: at most so many of each class, then so many in all, evenly over the classes.

    What holds for all sides cuts no list of files; what a side says of itself does.
    """
    side = config[name.removesuffix("_eval")]
    given, of_class, in_all = "images_per_class", 0, 0
    if name.endswith("_eval"):
        given = "eval_images_per_class"
    else:
        of_class, in_all = side["images_per_class"], side["images"]
    of_class = of_class or (0 if side["files"] else config[given])
    if not of_class and not in_all:
        return rows
    rng, labels = np.random.default_rng(seed_of(config["seed"], name)), source.labels[rows]
    drawn = [rng.permutation(rows[labels == i])[: of_class or None] for i in np.unique(labels)]
    rows = np.concatenate([rows[:0], *drawn])
    if in_all > len(rows):
        raise ConfigError(
            f"split.{name}.images={in_all}, but only {len(rows)} images are there to choose from. "
            "Ask for fewer, or for more classes or images of each."
        )
    if not in_all:
        return rows
    turn = np.concatenate([np.arange(len(some)) for some in drawn])  # one of each class, and again
    return rows[np.lexsort((rng.random(len(rows)), turn))[:in_all]]
