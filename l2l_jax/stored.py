"""Images of a finished run, read from its data set by the lists in its workdir."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.data import class_selection
from l2l_jax.lib import config_dicts
from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.registry import find
from l2l_jax.workdir.layout import Workdir


def images(
    folder: Path, config: Mapping[str, Any], split: str, count: int, seed: int
) -> tuple[list[np.ndarray], list[str]]:
    """(uint8 images [H, W, 3] of any size, the title of the class of each) of a split of a run.

    As many of each class as possible. ConfigError if there is no such split, if an image is no
    longer in the data set, or if nobody may see the images; DataMissing if the data set is not
    there.
    """
    splits = Workdir(folder).read_splits()
    if split not in splits:
        raise unknown_name(f"split of {folder}", split, splits)
    if split.startswith("forget") and config_dicts.withholds_forgotten(config):
        raise ConfigError(
            f"The images that {folder} forgot are not shown, because a list names them: nothing "
            "that somebody asked to delete is published again. config.report.show_forgotten "
            "changes this."
        )
    data = config["data"]
    if splits[split]["part"] not in ("train", "eval"):
        data = data["proxy"]
    part = "eval" if splits[split]["part"] == "eval" else "train"
    source = find("dataset", data["name"]).load(part, **data["args"])
    row_of = {key: row for row, key in enumerate(source.keys)}
    absent = [key for key in splits[split]["keys"] if key not in row_of]
    if absent:
        raise ConfigError(
            f"{len(absent):,} images of the split {split} of {folder} are no longer in the data "
            f"set, such as {absent[0]}."
        )
    rows = np.array([row_of[key] for key in splits[split]["keys"]], np.int64)
    chosen = rows[class_selection.balanced(source.labels[rows], count, seed)]
    titles = source.titles or source.classes
    return [source.read(int(row)) for row in chosen], [titles[source.labels[r]] for r in chosen]
