"""How a side of a split is chosen: classes by name, number or title, a list of files, a draw."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, DataMissing, did_you_mean
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Source

log = logging.getLogger(__name__)

LISTED = 40  # names of classes that an error shows


def draw_classes(
    config: Mapping[str, Any], sides: Sequence[str], source: Source
) -> dict[str, set[int]]:
    """The labels of each side: those listed, then seeded draws from the classes nobody listed."""
    classes = {side: _labels(config[side]["classes"], source, side) for side in sides}
    free = set(range(len(source.classes))).difference(*classes.values())
    for side in sides:
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


def resting(config: Mapping[str, Any], sides: Sequence[str], default: str) -> str | None:
    """The side that gets everything not given to another; `default`, if it says nothing."""
    chosen = [side for side in sides if config[side]["rest"]]
    if len(chosen) > 1:
        raise ConfigError(f"Only one side can be the rest, not {' and '.join(chosen)}.")
    said = any(config[default][key] for key in ("classes", "files", "random", "rest"))
    return chosen[0] if chosen else None if said else default


def _labels(wanted: tuple, source: Source, side: str) -> set[int]:
    """Class names, numbers or titles as labels; a title that several classes have names none."""
    labels = set()
    for item in wanted:
        titled = [label for label, title in enumerate(source.titles) if title == item]
        if isinstance(item, int) and 0 <= item < len(source.classes):
            labels.add(item)
        elif item in source.classes:
            labels.add(source.classes.index(item))
        elif len(titled) == 1:
            labels.add(titled[0])
        elif titled:
            named = ", ".join(source.classes[label] for label in titled)
            raise ConfigError(
                f"{item!r}, named in split.{side}.classes, is the title of {len(titled)} classes: "
                f"{named}. Say which."
            )
        else:
            raise _no_class(item, source, side)
    return labels


def _no_class(item: Any, source: Source, side: str) -> ConfigError:
    titles = source.titles or source.classes
    both = {*source.classes, *titles}
    known = [
        name if name == title else f"{name} ({title})"
        for name, title in zip(source.classes, titles, strict=True)
    ]
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return ConfigError(
        f"No class called {item!r}.{did_you_mean(item, both)} Known: {', '.join(known[:LISTED])}"
        f"{more}. It is named in split.{side}.classes."
    )


def listed(path: Path, sources: Mapping[str, Source]) -> dict[str, np.ndarray]:
    """Rows of the keys in a text file (one a line) or in a split's JSON, for each of the sources.

    The first of them is the one that is trained on.
    """
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
    trained, *held = sources
    if missing:
        raise ConfigError(
            f"{path} lists {len(missing)} images that are not in the data set: "
            f"{', '.join(sorted(missing)[:5])}. A key looks like {sources[trained].keys[0]!r}."
        )
    count = sum(len(rows[part]) for part in held)
    said = f"{count} of the {len(set(keys))} images that {path} lists are held out"
    if not len(rows[trained]):
        raise ConfigError(f"{said}: nothing can be trained on them. Hold out others, or fewer.")
    if count:
        log.warning("%s: they are judged, and not trained on", said)
    return rows
