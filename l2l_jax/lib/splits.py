"""Splits: which images are forgotten, which are retained, which are looked at afterwards.

A split is a sorted list of keys with a digest. `make` builds the five splits of a run from its
config (lib/splitfiles.py keeps them). A side is chosen by classes, by a list of files, by a seeded
draw of classes, or as the rest.
"""

import dataclasses
import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, DataMissing, unknown
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Source

log = logging.getLogger(__name__)

SIDES = ("forget", "retain", "proxy")  # in the order in which they draw and take
PARTS = {"train": "", "eval": "_eval"}


@dataclasses.dataclass(frozen=True)
class Split:
    """Some examples of one part of a data set, sorted by key."""

    name: str
    part: str  # "train" or "eval"
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

    config: config.split, see configs/common.py; sources: {"train": ..., "eval": ...}. Empty splits
    are left out; a proxy is trained on and never evaluated. ConfigError for overlaps, unknown
    classes, and lists that name images which do not exist.
    """
    chosen = {part: {} for part in PARTS}
    classes = _draw_classes(config, sources["train"].classes)
    for side in SIDES:
        listed = _listed(Path(config[side]["files"]), sources) if config[side]["files"] else {}
        for part, source in sources.items():
            by_class = np.flatnonzero(np.isin(source.labels, sorted(classes[side])))
            chosen[part][side] = listed.get(part, by_class)
    for part, source in sources.items():
        _check_disjoint(chosen[part], source)
        if side := _resting(config):
            taken = np.concatenate(list(chosen[part].values()))
            chosen[part][side] = np.setdiff1d(np.arange(len(source.keys)), taken)
    chosen["eval"]["proxy"] = np.array([], np.int64)

    splits = {}
    limits = {"train": config["images_per_class"], "eval": config["eval_images_per_class"]}
    for part, suffix in PARTS.items():
        for side in SIDES:
            name, source = side + suffix, sources[part]
            seed = seed_of(config["seed"], name)
            limit = 0 if config[side]["files"] else limits[part]
            if len(rows := _limit(chosen[part][side], source, limit, seed)):
                splits[name] = pick(name, part, source, rows)
    if "forget" in splits and "forget_eval" not in splits:
        # Single images were listed, none of them held out: what they complete to is the question.
        splits["forget_eval"] = dataclasses.replace(splits["forget"], name="forget_eval")
    return splits


def _draw_classes(config: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, set[int]]:
    """The labels of each side: those listed, then seeded draws from the classes nobody listed."""
    classes = {side: _labels(config[side]["classes"], known, side) for side in SIDES}
    free = set(range(len(known))).difference(*classes.values())
    for side in SIDES:
        ways = [key for key in ("classes", "files", "random", "rest") if config[side][key]]
        if len(ways) > 1:
            raise ConfigError(f"split.{side} has both {' and '.join(ways)}; choose one.")
        if count := config[side]["random"]:
            if count > len(free):
                raise ConfigError(
                    f"split.{side}.random={count}, but only {len(free)} classes are left to draw."
                )
            rng = np.random.default_rng(seed_of(config["seed"], "classes", side))
            classes[side] = set(rng.choice(sorted(free), count, replace=False).tolist())
            free -= classes[side]
    return classes


def _resting(config: Mapping[str, Any]) -> str | None:
    """The side that gets everything not given to another; retain, if it says nothing."""
    resting = [side for side in SIDES if config[side]["rest"]]
    if len(resting) > 1:
        raise ConfigError(f"Only one side can be the rest, not {' and '.join(resting)}.")
    said = any(config["retain"].values())
    return resting[0] if resting else None if said else "retain"


def _labels(wanted: tuple, classes: tuple[str, ...], side: str) -> set[int]:
    """Class names or numbers as labels."""
    labels = set()
    for item in wanted:
        if isinstance(item, int) and 0 <= item < len(classes):
            labels.add(item)
        elif item in classes:
            labels.add(classes.index(item))
        else:
            raise unknown("class", item, classes, f"It is named in split.{side}.classes.")
    return labels


def _listed(path: Path, sources: Mapping[str, Source]) -> dict[str, np.ndarray]:
    """Rows of the keys in a text file (one a line) or in a split's JSON."""
    if not path.is_file():
        raise DataMissing(f"{path} does not exist. It should list image keys, one a line.")
    if path.suffix == ".json":
        keys = files.read_json(path)["keys"]
    else:
        keys = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    rows: dict[str, np.ndarray] = {}
    missing = set(keys)
    for part, source in sources.items():
        at = {key: i for i, key in enumerate(source.keys)}
        rows[part] = np.array(sorted(at[key] for key in set(keys) & at.keys()), np.int64)
        missing -= at.keys()
    if missing:
        raise ConfigError(
            f"{path} lists {len(missing)} images that are not in the data set: "
            f"{', '.join(sorted(missing)[:5])}. A key looks like {sources['train'].keys[0]!r}."
        )
    said = f"{len(rows['eval'])} of the {len(set(keys))} images that {path} lists are held out"
    if not len(rows["train"]):
        raise ConfigError(f"{said}: nothing can be trained on them. Hold out others, or fewer.")
    if len(rows["eval"]):
        log.warning("%s: they are judged, and not trained on", said)
    return rows


def _check_disjoint(rows: Mapping[str, np.ndarray], source: Source) -> None:
    for one, other in itertools.combinations(SIDES, 2):
        both = np.intersect1d(rows[one], rows[other])
        if len(both):
            classes = sorted({source.classes[source.labels[row]] for row in both})
            raise ConfigError(
                f"split.{one} and split.{other} share {len(both)} images of "
                f"{', '.join(classes[:5])} (first: {source.keys[both[0]]}). An image cannot be on "
                "two sides; take it off one of them."
            )


def _limit(rows: np.ndarray, source: Source, limit: int, seed: int) -> np.ndarray:
    """At most `limit` seeded rows of every class; 0 keeps all."""
    if not limit:
        return rows
    rng = np.random.default_rng(seed)
    labels = source.labels[rows]
    classes = [rng.permutation(rows[labels == label])[:limit] for label in np.unique(labels)]
    return np.concatenate(classes) if classes else rows
