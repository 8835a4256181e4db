"""Selects the images of each side of a split: classes, a list of image keys, or a random draw."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.data import key_lists
from l2l_jax.lib.errors import ConfigError, did_you_mean
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Source

log = logging.getLogger(__name__)

SELECTIONS = ("classes", "files", "random", "rest")  # a side sets at most one of these
MAX_CLASSES_SHOWN = 40  # in an error message


def labels_of_sides(
    config: Mapping[str, Any], sides: Sequence[str], source: Source
) -> dict[str, set[int]]:
    """{side: labels}: those in its `classes`, or its seeded draw from the classes no side names.

    ConfigError for unknown classes, more than one selection, and draws of too many classes.
    """
    labels = {side: _labels(config[side]["classes"], source, side) for side in sides}
    free = set(range(len(source.classes))).difference(*labels.values())
    for side in sides:
        selections = [key for key in SELECTIONS if config[side][key]]
        if len(selections) > 1:
            raise ConfigError(f"split.{side} has both {' and '.join(selections)}; choose one.")
        if count := config[side]["random"]:
            if count > len(free):
                raise ConfigError(
                    f"split.{side}.random={count}, but only {len(free)} classes are left to draw."
                )
            rng = np.random.default_rng(seed_of(config["seed"], "classes", side))
            labels[side] = set(rng.choice(sorted(free), count, replace=False).tolist())
            free -= labels[side]
    return labels


def side_taking_rest(config: Mapping[str, Any], sides: Sequence[str], default: str) -> str | None:
    """The side that gets all images of no other side; None if there is none.

    It is the side with `rest`, else `default` if that side sets no selection of its own.
    """
    chosen = [side for side in sides if config[side]["rest"]]
    if len(chosen) > 1:
        raise ConfigError(f"Only one side can be the rest, not {' and '.join(chosen)}.")
    if chosen:
        return chosen[0]
    return None if any(config[default][key] for key in SELECTIONS) else default


def _labels(items: tuple, source: Source, side: str) -> set[int]:
    """Labels of class names, numbers or titles. ConfigError if a title has several classes."""
    labels = set()
    for item in items:
        titled = [label for label, title in enumerate(source.titles) if title == item]
        if isinstance(item, int) and 0 <= item < len(source.classes):
            labels.add(item)
        elif item in source.classes:
            labels.add(source.classes.index(item))
        elif len(titled) == 1:
            labels.add(titled[0])
        elif titled:
            names = ", ".join(source.classes[label] for label in titled)
            raise ConfigError(
                f"{item!r}, named in split.{side}.classes, is the title of {len(titled)} classes: "
                f"{names}. Use the name of one of them."
            )
        else:
            raise _unknown_class(item, source, side)
    return labels


def _unknown_class(item: Any, source: Source, side: str) -> ConfigError:
    titles = source.titles or source.classes
    known = [
        name if name == title else f"{name} ({title})"
        for name, title in zip(source.classes, titles, strict=True)
    ]
    hidden = len(known) - MAX_CLASSES_SHOWN
    more = f" and {hidden} more" if hidden > 0 else ""
    return ConfigError(
        f"No class called {item!r}.{did_you_mean(item, {*source.classes, *titles})} Known: "
        f"{', '.join(known[:MAX_CLASSES_SHOWN])}{more}. It is named in split.{side}.classes."
    )


def rows_of_list(
    path: Path, sources: Mapping[str, Source], missing_keys: str = "stop"
) -> dict[str, np.ndarray]:
    """{part: sorted int64 rows} of the image keys in a text file (one a line) or a split's JSON.

    The first of the sources is the part that is trained on. missing_keys: what a key that is in no
    source does, "stop" or "skip". DataMissing if there is no such file; ConfigError if it is no
    list, if it stops at a key, or if no key is in the first source.
    """
    keys = key_lists.read(path)
    rows: dict[str, np.ndarray] = {}
    missing = set(keys)
    for part, source in sources.items():
        row_of = {key: row for row, key in enumerate(source.keys)}
        rows[part] = np.array(sorted(row_of[key] for key in set(keys) & row_of.keys()), np.int64)
        missing -= row_of.keys()
    trained, *held_out = sources
    if missing:
        known = [key for source in sources.values() for key in source.keys]
        error = key_lists.unknown(path, missing, known)
        if missing_keys == "stop" or len(missing) == len(set(keys)):
            raise error
        log.warning(
            "%s lists %d images that are not in the data set, such as %s; they are left out",
            *(path, len(missing), sorted(missing)[0]),
        )
    count = sum(len(rows[part]) for part in held_out)
    statement = f"{count} of the {len(set(keys))} images that {path} lists are held out"
    if not len(rows[trained]):
        raise ConfigError(
            f"{statement}: nothing can be trained on them. List at least one training image."
        )
    if count:
        log.warning("%s: they are evaluated, and not trained on", statement)
    return rows


def balanced(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions of `count` labels, ascending, as many of each value as possible; 0 = all."""
    if not count or count >= len(labels):
        return np.arange(len(labels))
    mixed = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), np.int64)  # how many of its class come before an image
    for label in np.unique(labels):
        mine = mixed[labels[mixed] == label]
        turn[mine] = np.arange(len(mine))
    return np.sort(mixed[np.argsort(turn[mixed], kind="stable")][:count])
