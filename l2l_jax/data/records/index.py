"""The index of a set of records: the name and the label of each record.

To build it all records must be read, which takes hours for a large set. Therefore the index is
stored: beside the records by launch/prepare, else in files.cache_dir() on first use.
"""

import concurrent.futures
import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from l2l_jax.lib import bounded, files, sealed
from l2l_jax.lib.errors import BrokenImage

log = logging.getLogger(__name__)

KEY = "index of records"  # of the digest in an index file, which may be moved and renamed
THREADS = 16
LOG_SECONDS = 10  # between two log lines
COMPARED_RECORDS = 16  # records that an index is compared with before it is used


class RecordData(Protocol):
    """Records by random access, such as an ArrayRecordDataSource."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Fields:
    """Names of the features of a record that are read."""

    key: str
    label: str = "label"  # "" if the set has no labels
    image: str = "image"


def load_or_build(
    folder: Path, split: str, fields: Fields, shards: Sequence[Any], data: RecordData
) -> tuple[tuple[str, ...], np.ndarray]:
    """(names, labels int32 [N]) in the order of the records. BrokenImage names a damaged file."""
    digest = digest_of(split, fields, [Path(shard.filename) for shard in shards])
    location = files.digest_of_lines([str(folder.resolve()), digest])
    cached = files.cache_dir() / "index" / f"{location}.npz"
    for path in (path_beside(folder, split), cached):
        if stored := sealed.read(path, KEY):
            try:
                arrays = bounded.npz_of(stored, path)
                names = np.char.decode(arrays["names"], "utf-8").tolist()
                labels, same_files = arrays["labels"], str(arrays["digest"]) == digest
            except (ValueError, KeyError, TypeError) as error:  # made again below
                log.warning("%s is damaged and not used: %s", path, error)
                continue
            if same_files and _matches(names, labels, fields, data):
                return tuple(names), labels
            log.warning("%s belongs to other files and is not used", path)
    names, labels = _read_all(folder, fields, shards)
    sealed.write_if_possible(cached, KEY, lambda file: _save(file, digest, names, labels))
    return tuple(names), labels


def _matches(names: Sequence[str], labels: np.ndarray, fields: Fields, data: RecordData) -> bool:
    """Whether a sample of the records has these names and labels.

    Needed because file sizes are multiples of 64 KiB, so that other files can have the same digest.
    """
    if len(names) != len(data):
        return False
    rows = np.unique(np.linspace(0, len(data) - 1, COMPARED_RECORDS).astype(int)).tolist()
    for row in rows:
        with contextlib.suppress(RuntimeError, ValueError):  # a damaged record: an error when read
            if _name_and_label(data[row], fields) != (names[row], labels[row]):
                return False
    return True


def path_beside(folder: Path, split: str) -> Path:
    """The index file beside the records, which launch/prepare writes."""
    return folder / f"index_{split}.npz"


def digest_of(split: str, fields: Fields, paths: Sequence[Path]) -> str:
    """Identifies the files that an index belongs to by names and sizes, in any folder."""
    lines = [split, fields.key, fields.label]
    return files.digest_of_lines(lines + [f"{p.name} {p.stat().st_size}" for p in paths])


def write(path: Path, digest: str, names: Sequence[str], labels: np.ndarray) -> None:
    """Writes an index: names and labels in the order of the records."""
    sealed.write(path, KEY, lambda file: _save(file, digest, names, labels))


def _save(file: BinaryIO, digest: str, names: Sequence[str], labels: np.ndarray) -> None:
    encoded = np.char.encode(np.array(names), "utf-8")
    np.savez_compressed(file, digest=digest, names=encoded, labels=labels.astype(np.int32))


def _read_all(folder: Path, fields: Fields, shards: Sequence[Any]) -> tuple[list[str], np.ndarray]:
    """(names, labels) after reading all records. BrokenImage names a damaged file."""
    log.info("reading the names and labels in %s, once: %d files", folder, len(shards))
    logged = time.monotonic()
    names: list[str] = []
    labels: list[int] = []
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for done, pairs in enumerate(pool.map(lambda shard: _read_shard(fields, shard), shards), 1):
            names += [name for name, _ in pairs]
            labels += [label for _, label in pairs]
            if time.monotonic() - logged > LOG_SECONDS:
                logged = time.monotonic()
                log.info("read %d of %d files, %d images", done, len(shards), len(names))
    return names, np.array(labels, np.int32)


def _read_shard(fields: Fields, shard: Any) -> list[tuple[str, int]]:
    """[(name, label)] of one file; shard: a FileInstruction of TFDS."""
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # a C++ extension

    try:
        bounded.open_regular(shard.filename).close()
        reader = array_record_module.ArrayRecordReader(str(shard.filename))
        if reader.num_records() != shard.examples_in_shard:
            count = f"{reader.num_records()} records instead of the {shard.examples_in_shard}"
            raise ValueError(f"it has {count} that dataset_info.json declares")
        return [_name_and_label(reader.read(), fields) for _ in range(shard.examples_in_shard)]
    except Exception as error:  # array_record raises RuntimeError, protobuf its own errors
        raise BrokenImage(
            f"{shard.filename} is truncated or damaged: {error}. Remove it and create it anew, or "
            "copy it again from its source."
        ) from error


def features(record: bytes) -> Any:
    """{name: protobuf feature} of a record."""
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]  # made at run time
    return example.FromString(record).features.feature


def bytes_of(features: Any, name: str) -> bytes:
    """The value of a feature that holds bytes."""
    return features[name].bytes_list.value[0]


def _name_and_label(record: bytes, fields: Fields) -> tuple[str, int]:
    """The name of a record and its label, 0 if the set has no labels."""
    by_name = features(record)
    label = by_name[fields.label].int64_list.value[0] if fields.label else 0
    return bytes_of(by_name, fields.key).decode(), label
