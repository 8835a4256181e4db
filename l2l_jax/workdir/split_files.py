"""Splits as JSON files in a workdir, so that a continued run uses the same images."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from l2l_jax.data.splits import Split, pick
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Source
from l2l_jax.workdir.layout import Workdir


def save(folder: Path, splits: Mapping[str, Split]) -> None:
    """Writes all splits of the workdir `folder`, or none; does nothing if it has splits.

    The folder of splits gets its name after every file in it is written.
    """
    target = Workdir(folder).splits
    if target.exists():
        return
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    for name, split in splits.items():
        record = dataclasses.asdict(split) | {"count": len(split.keys), "digest": split.digest}
        del record["indices"]
        files.write_json(temporary / Workdir(folder).split(name).name, record)
    temporary.rename(target)


def load(folder: Path, sources: Mapping[str, Source]) -> dict[str, Split]:
    """{name: split} of the workdir `folder`; {} if it has none.

    ConfigError if a file was edited, or lists images that its data set no longer has.
    """
    workdir, splits = Workdir(folder), {}
    for name, record in workdir.read_splits().items():
        source = sources[record["part"]]
        row_of = {key: row for row, key in enumerate(source.keys)}
        if absent := [key for key in record["keys"] if key not in row_of]:
            raise ConfigError(
                f"{workdir.split(name)} lists {len(absent)} images that the data set no longer "
                f"has, such as {absent[0]}. Restore them, or start again in another workdir."
            )
        rows = np.array([row_of[key] for key in record["keys"]])
        skipped = tuple(record["skipped"])
        splits[name] = split = pick(name, record["part"], source, rows, skipped)
        if split.digest != record["digest"]:
            raise ConfigError(
                f"{workdir.split(name)} does not match its digest; it was edited after the run."
            )
    return splits
