"""The index of a set of records: the name and the label of each.

Even for these a record is read whole, which takes hours for a large set, so they are kept: beside
the files where launch/prepare has put them, else below files.cache_dir(), made on first use.
"""

import concurrent.futures
import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from l2l_jax.lib import files
from l2l_jax.lib.errors import BrokenImage

log = logging.getLogger(__name__)

THREADS = 16
SAY_EVERY = 10  # seconds
TRIED = 16  # records that an index is compared with before it is used


@dataclasses.dataclass(frozen=True)
class Fields:
    """The features of a record that are read."""

    key: str
    label: str = "label"  # "": the set has none
    image: str = "image"


def kept_or_made(
    folder: Path, split: str, fields: Fields, shards: Sequence[Any], data: Sequence[bytes]
) -> tuple[tuple[str, ...], np.ndarray]:
    """(names, labels) in the order of the files. BrokenImage names a file that is damaged."""
    digest = digest_of(split, fields, [Path(shard.filename) for shard in shards])
    place = files.digest_of_lines([str(folder.resolve()), digest])
    cached = files.cache_dir() / "index" / f"{place}.npz"
    for path in (path_beside(folder, split), cached):
        if path.is_file():
            with np.load(path) as arrays:
                names = np.char.decode(arrays["names"], "utf-8").tolist()
                labels, belongs = arrays["labels"], str(arrays["digest"]) == digest
            if belongs and _agree(names, labels, fields, data):
                return tuple(names), labels
            log.warning("%s belongs to other files and is not used", path)
    names, labels = _read_all(folder, fields, shards)
    files.keep(cached, lambda file: _save(file, digest, names, labels))
    return tuple(names), labels


def _agree(names: Sequence[str], labels: np.ndarray, fields: Fields, data: Sequence[bytes]) -> bool:
    """Whether some records are what the index says: sizes of files come in steps of 64 KiB."""
    if len(names) != len(data):
        return False
    rows = np.unique(np.linspace(0, len(data) - 1, TRIED).astype(int)).tolist()
    for row in rows:
        with contextlib.suppress(RuntimeError, ValueError):  # damaged: named when it is looked at
            if _about(data[row], fields) != (names[row], labels[row]):
                return False
    return True


def path_beside(folder: Path, split: str) -> Path:
    """Where launch/prepare puts the index."""
    return folder / f"index_{split}.npz"


def digest_of(split: str, fields: Fields, paths: Sequence[Path]) -> str:
    """Names the files an index belongs to, wherever they lie: by their names and sizes."""
    about = [split, fields.key, fields.label]
    return files.digest_of_lines(about + [f"{p.name} {p.stat().st_size}" for p in paths])


def write(path: Path, digest: str, names: Sequence[str], labels: np.ndarray) -> None:
    """Names and labels in the order of the files."""
    with files.replacing(path) as file:
        _save(file, digest, names, labels)


def _save(file: BinaryIO, digest: str, names: Sequence[str], labels: np.ndarray) -> None:
    encoded = np.char.encode(np.array(names), "utf-8")
    np.savez_compressed(file, digest=digest, names=encoded, labels=labels.astype(np.int32))


def _read_all(folder: Path, fields: Fields, shards: list) -> tuple[list[str], np.ndarray]:
    """Reads every record once, many files at a time. BrokenImage names a file that is damaged."""
    log.info("reading the names and labels of %s, once: %d files", folder, len(shards))
    said = time.monotonic()
    names: list[str] = []
    labels: list[int] = []
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for at, found in enumerate(pool.map(lambda shard: _read_shard(fields, shard), shards)):
            names += [name for name, _ in found]
            labels += [label for _, label in found]
            if time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                log.info("read %d of %d files, %d images", at + 1, len(shards), len(names))
    return names, np.array(labels, np.int32)


def _read_shard(fields: Fields, shard: Any) -> list[tuple[str, int]]:
    from array_record.python import array_record_module

    try:
        reader = array_record_module.ArrayRecordReader(str(shard.filename))
        if reader.num_records() != shard.examples_in_shard:
            count = f"{reader.num_records()} records instead of the {shard.examples_in_shard}"
            raise ValueError(f"it has {count} that dataset_info.json tells of")
        return [_about(reader.read(), fields) for _ in range(shard.examples_in_shard)]
    except Exception as error:  # array_record raises RuntimeError, protobuf its own
        raise BrokenImage(
            f"{shard.filename} is truncated or damaged: {error}. Remove it and make it anew, or "
            "copy it once more from where it came."
        ) from error


def features(record: bytes) -> Any:
    """The features of a record, by name."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).features.feature


def value(features: Any, name: str) -> bytes:
    """The feature that is a string of bytes."""
    return features[name].bytes_list.value[0]


def _about(record: bytes, fields: Fields) -> tuple[str, int]:
    found = features(record)
    label = found[fields.label].int64_list.value[0] if fields.label else 0
    return value(found, fields.key).decode(), label
