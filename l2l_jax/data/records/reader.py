"""Data sets that TFDS keeps in ArrayRecord files, by random access and without TensorFlow.

Names and labels come from an index (data/records/index.py), images from the files.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.data import images
from l2l_jax.data.records import index
from l2l_jax.data.records.index import Fields
from l2l_jax.lib import files
from l2l_jax.lib.errors import BrokenImage, DataMissing
from l2l_jax.types import Source

VERSION = re.compile(r"\d+\.\d+\.\d+")
FORMAT = "array_record"


@dataclasses.dataclass(frozen=True)
class Records:
    """One split of a set, in the order of its files."""

    folder: Path
    names: tuple[str, ...]  # the key feature
    labels: np.ndarray  # [N] int32, zeros if the set has none
    classes: tuple[str, ...]  # what the labels mean
    fields: Fields
    data: Sequence[bytes]
    paths: tuple[Path, ...]  # its files

    def image(self, at: int) -> bytes:
        """The file as it was written. BrokenImage if its record is damaged."""
        try:
            return index.value(index.features(self.data[at]), self.fields.image)
        except Exception as error:  # array_record raises RuntimeError, protobuf its own
            where = f"{self.names[at]} of {self.folder}"
            raise BrokenImage(f"{where}: {type(error).__name__}: {error}") from error


def find(root: Path, name: str) -> Path | None:
    """The newest version of the set: root itself, root/<version> or root/<name>/<version>."""
    if _is_set(root):
        return root
    for folder in (root / name, root):
        if folder.is_dir() and (found := [p for p in folder.iterdir() if _is_set(p)]):
            return max(found, key=lambda path: [int(n) for n in path.name.split(".")])
    return None


def _is_set(folder: Path) -> bool:
    named = VERSION.fullmatch(folder.name)
    return bool(named) and (folder / "dataset_info.json").is_file()


def read(folder: Path, split: str, fields: Fields, help: str, root: Path) -> Records:
    """DataMissing, help with {root} and {missing} filled in, if the split cannot be read."""
    import tensorflow_datasets as tfds  # slow, and of no use to other data sets
    from array_record.python import array_record_data_source

    info = tfds.builder_from_directory(folder).info
    if split not in info.splits:
        raise DataMissing(help.format(root=root, missing=f"its {split} split is missing"))
    if info.file_format.value != FORMAT:
        missing = f"it is there in the format {info.file_format.value}, which cannot be read by "
        missing += f"random access;\nremove {folder} first, and prepare it anew"
        raise DataMissing(help.format(root=root, missing=missing))
    shards = info.splits[split].file_instructions
    if absent := [shard.filename for shard in shards if not os.path.exists(shard.filename)]:
        missing = f"{len(absent)} of {len(shards)} files are missing, the first {absent[0]}"
        raise DataMissing(help.format(root=root, missing=missing))
    data = array_record_data_source.ArrayRecordDataSource(shards)
    names, labels = index.kept_or_made(folder, split, fields, shards, data)
    classes = tuple(info.features[fields.label].names) if fields.label else ()
    paths = tuple(Path(shard.filename) for shard in shards)
    return Records(folder, names, labels, classes, fields, data, paths)


def source(
    records: Records,
    keys: Sequence[str],
    labels: np.ndarray,
    classes: tuple[str, ...],
    fallible: bool = True,
    **more: Any,
) -> Source:
    """Keys and labels of the records, in their order, as a Source."""
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    ordered = tuple(keys[at] for at in order)

    def read_image(at: int) -> np.ndarray:
        return images.decode(records.image(int(order[at])), f"{ordered[at]} of {records.folder}")

    shards = files.digest_of_lines([files.stamp(path) for path in records.paths])

    def stamp(at: int) -> str:
        return f"{shards} {order[at]}"

    labels = labels[order].astype(np.int32)
    return Source(ordered, labels, classes, read_image, fallible=fallible, stamp=stamp, **more)
