"""Reads data sets that TFDS stores in ArrayRecord files, by random access, without TensorFlow.

Names and labels are read from an index (data/records/index.py), images from the records.
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
from l2l_jax.data.records.index import Fields, RecordData
from l2l_jax.lib import files
from l2l_jax.lib.errors import BrokenImage, DataMissing
from l2l_jax.types import Source

VERSION = re.compile(r"\d+\.\d+\.\d+")
FORMAT = "array_record"


@dataclasses.dataclass(frozen=True)
class Records:
    """The N records of one split, in the order of its files."""

    folder: Path
    names: tuple[str, ...]  # values of the feature fields.key
    labels: np.ndarray  # [N] int32, zeros if the set has no labels
    classes: tuple[str, ...]  # class names, the label is the position; () if there are no labels
    fields: Fields
    data: RecordData
    paths: tuple[Path, ...]  # the ArrayRecord files

    def image(self, row: int) -> bytes:
        """The content of an image file, unchanged. BrokenImage if the record is damaged."""
        try:
            return index.bytes_of(index.features(self.data[row]), self.fields.image)
        except Exception as error:  # array_record raises RuntimeError, protobuf its own errors
            where = f"{self.names[row]} of {self.folder}"
            raise BrokenImage(f"{where}: {type(error).__name__}: {error}") from error


def find(root: Path, name: str) -> Path | None:
    """The folder of the newest version of a set, or None.

    It is root itself, or in root/<name>/<version>, or in root/<version>.
    """
    if _is_version(root):
        return root
    for folder in (root / name, root):
        if folder.is_dir() and (versions := [p for p in folder.iterdir() if _is_version(p)]):
            return max(versions, key=lambda path: [int(n) for n in path.name.split(".")])
    return None


def _is_version(folder: Path) -> bool:
    """Whether the folder holds a complete version of a set."""
    return bool(VERSION.fullmatch(folder.name)) and (folder / "dataset_info.json").is_file()


def read(folder: Path, split: str, fields: Fields, help: str, root: Path) -> Records:
    """The records of one split in the folder of a version.

    Raises DataMissing if they cannot be read; its message is `help` with {root} and {missing}
    filled in.
    """
    import tensorflow_datasets as tfds  # slow, and not needed for other data sets
    from array_record.python import array_record_data_source

    info: Any = tfds.builder_from_directory(folder).info
    if split not in info.splits:
        raise DataMissing(help.format(root=root, missing=f"its {split} split is missing"))
    if info.file_format.value != FORMAT:
        missing = f"it is there in the format {info.file_format.value}, which cannot be read by "
        missing += f"random access;\nremove {folder} first, and prepare it again"
        raise DataMissing(help.format(root=root, missing=missing))
    shards = info.splits[split].file_instructions
    if absent := [shard.filename for shard in shards if not os.path.isfile(shard.filename)]:
        missing = f"{len(absent)} of {len(shards)} files are missing, the first {absent[0]}"
        raise DataMissing(help.format(root=root, missing=missing))
    data = array_record_data_source.ArrayRecordDataSource(shards)
    names, labels = index.load_or_build(folder, split, fields, shards, data)
    classes = tuple(info.features[fields.label].names) if fields.label else ()
    paths = tuple(Path(shard.filename) for shard in shards)
    return Records(folder, names, labels, classes, fields, data, paths)


def source(
    records: Records,
    keys: Sequence[str],
    labels: np.ndarray,
    classes: tuple[str, ...],
    fallible: bool = True,
    **fields: Any,
) -> Source:
    """The records as a Source; fields: further fields of it, such as titles.

    keys and labels are in the order of the records; the Source is sorted by key.
    """
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    ordered = tuple([keys[int(row)] for row in order])

    def read_image(row: int) -> np.ndarray:
        return images.decode(records.image(int(order[row])), f"{ordered[row]} of {records.folder}")

    shards = files.digest_of_lines([files.file_stamp(path) for path in records.paths])

    def stamp(row: int) -> str:
        return f"{shards} {order[row]}"

    labels = labels[order].astype(np.int32)
    return Source(ordered, labels, classes, read_image, fallible=fallible, stamp=stamp, **fields)
