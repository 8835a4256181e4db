"""Splits as files in a workdir: a continued run takes them from there, and others can read them."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from l2l_jax.data.splits import Split, pick
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Source


def save(folder: Path, splits: Mapping[str, Split]) -> None:
    """All of them or none: the folder appears once every file in it is written."""
    if folder.exists():
        return
    making = folder.with_name(f".{folder.name}")
    shutil.rmtree(making, ignore_errors=True)
    for name, split in splits.items():
        record = dataclasses.asdict(split) | {"count": len(split.keys), "digest": split.digest}
        del record["indices"]
        files.write_json(making / f"{name}.json", record)
    making.rename(folder)


def load(folder: Path, sources: Mapping[str, Source]) -> dict[str, Split]:
    """The splits of a workdir. ConfigError if they were edited or the data changed since."""
    splits = {}
    for path in sorted(folder.glob("*.json")):
        record = files.read_json(path)
        source = sources[record["part"]]
        at = {key: i for i, key in enumerate(source.keys)}
        if gone := [key for key in record["keys"] if key not in at]:
            raise ConfigError(
                f"{path} lists {len(gone)} images that the data set no longer has, such as "
                f"{gone[0]}. Bring them back, or start again in another workdir."
            )
        rows = np.array([at[key] for key in record["keys"]])
        skipped = tuple(record["skipped"])
        splits[path.stem] = split = pick(path.stem, record["part"], source, rows, skipped)
        if split.digest != record["digest"]:
            raise ConfigError(f"{path} does not match its digest; it was edited after the run.")
    return splits
