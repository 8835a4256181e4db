"""Writes image files as a TFDS set in ArrayRecord files: many processes, a file at a time.

A file takes its name only once it is whole, so that work which was stopped goes on where it was.
The bytes of the images stay as they are, and no TensorFlow is needed.
"""

import concurrent.futures
import dataclasses
import logging
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from l2l_jax.data.records import index, reader, writer
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, NotSaved

log = logging.getLogger(__name__)

PER_FILE = 1000  # images
SAY_EVERY = 10  # seconds
PLAN = "plan.json"


@dataclasses.dataclass(frozen=True)
class Target:
    """The set that is written."""

    folder: Path  # .../imagenet2012/5.1.0
    dataset: str
    classes: tuple[str, ...]  # what the labels mean; () if there are none
    fields: reader.Fields
    per_file: int = PER_FILE


def convert(target: Target, splits: Mapping[str, Sequence[writer.Row]], workers: int = 1) -> None:
    """Writes what is not there yet, then the description, without which nobody reads the set.

    ConfigError if another set lies there, BrokenImage if an image is none.
    """
    shards = {name: list(_shards(target, name, rows)) for name, rows in splits.items()}
    if not _begin(target, splits):
        log.info("%s is complete already", target.folder)
        return
    left = [shard for some in shards.values() for shard in some if not shard.path.exists()]
    total = sum(map(len, shards.values()))
    if len(left) < total:
        log.info("%d of %d files are there already", total - len(left), total)
    _write_all(left, target.fields, workers)
    for name, some in shards.items():
        digest = index.digest_of(name, target.fields, [shard.path for shard in some])
        _, names, labels = zip(*splits[name], strict=True)
        index.write(index.path_beside(target.folder, name), digest, names, np.array(labels))
    writer.describe(target.folder, target.dataset, target.classes, target.fields, shards)


def _shards(target: Target, split: str, rows: Sequence[writer.Row]) -> Iterator[writer.Shard]:
    count = -(-len(rows) // target.per_file)
    for at, part in enumerate(np.array_split(np.arange(len(rows)), count)):
        name = f"{target.dataset}-{split}.{reader.FORMAT}-{at:05d}-of-{count:05d}"
        yield writer.Shard(target.folder / name, [rows[i] for i in part])


def _begin(target: Target, splits: Mapping[str, Sequence[writer.Row]]) -> bool:
    """Whether anything is to be done; notes which images the files are made of."""
    path = target.folder / PLAN
    described = [
        (target.folder / f"{name}.json").is_file() for name in ("dataset_info", "features")
    ]
    lines = [f"{name} {row[1]} {row[2]}" for name, rows in splits.items() for row in rows]
    plan = {"images": len(lines), "digest": files.digest_of_lines(lines), "per": target.per_file}
    known = files.read_json(path) if path.is_file() else None
    if known == plan:
        return not all(described)
    if known or any(described) or any(target.folder.glob(f"*{reader.FORMAT}*")):
        held = f"{known['images']:,} other images" if known else "a set made by another program"
        raise ConfigError(
            f"{target.folder} holds {held}, not these {len(lines):,}. Remove it, or convert to "
            "another folder."
        )
    files.write_json(path, plan)
    return True


def _write_all(shards: list[writer.Shard], fields: reader.Fields, workers: int) -> None:
    began = said = time.monotonic()
    total, done = sum(len(shard.rows) for shard in shards), 0
    for count in _written(shards, fields, workers):
        done += count
        now = time.monotonic()
        if now - said > SAY_EVERY or done == total:
            said, rate = now, done / (now - began)
            left = (total - done) / rate / 60
            log.info("%d of %d images, %.0f/s, %.0f min left", done, total, rate, left)


def _written(shards: list[writer.Shard], fields: reader.Fields, workers: int) -> Iterator[int]:
    """The number of images of each file as it is done."""
    if workers < 2:
        yield from (writer.write(shard, fields) for shard in shards)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        jobs = [pool.submit(writer.write, shard, fields) for shard in shards]
        try:
            for job in concurrent.futures.as_completed(jobs):
                yield job.result()
        except BrokenProcessPool as error:
            raise NotSaved(
                f"A process that wrote was killed, perhaps for want of memory. {writer.AGAIN}"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
