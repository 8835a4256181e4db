"""Converts image files to a TFDS set in ArrayRecord files, with several processes.

A file gets its name only when it is complete, so that a stopped conversion continues with the
missing files. The bytes of the images are not changed, unless the target's form is one of smaller
images, and TensorFlow is not needed.
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

IMAGES_PER_FILE = 1000
LOG_SECONDS = 10  # between two log lines
PLAN = "plan.json"  # the file that identifies the images which a set is made of


@dataclasses.dataclass(frozen=True)
class Target:
    """The set that is written."""

    folder: Path  # .../imagenet2012/5.1.0
    dataset: str  # the name that the files begin with
    classes: tuple[str, ...]  # class names, the label is the position; () if there are no labels
    fields: reader.Fields
    per_file: int = IMAGES_PER_FILE
    form: writer.Form = writer.UNCHANGED


def convert(target: Target, splits: Mapping[str, Sequence[writer.Row]], workers: int = 1) -> None:
    """Writes the missing files of the splits, the indices, and at last the description of the set.

    Without the description nobody reads the set. ConfigError if the folder holds another set,
    BrokenImage if a path is not that of an image, NotSaved if a file cannot be written.
    """
    shards = {name: list(_shards(target, name, rows)) for name, rows in splits.items()}
    if not _record_plan(target, splits):
        log.info("%s is complete already", target.folder)
        return
    files.sweep(target.folder)
    missing = [each for of_split in shards.values() for each in of_split if not each.path.exists()]
    total = sum(map(len, shards.values()))
    if len(missing) < total:
        log.info("%d of %d files are there already", total - len(missing), total)
    log.info("writing %s", target.form.description)
    _write_all(missing, target.fields, target.form, workers)
    for name, of_split in shards.items():
        digest = index.digest_of(name, target.fields, [shard.path for shard in of_split])
        _, names, labels = zip(*splits[name], strict=True)
        index.write(index.path_beside(target.folder, name), digest, names, np.array(labels))
    writer.describe(
        target.folder, target.dataset, target.classes, target.fields, shards, target.form
    )


def _shards(target: Target, split: str, rows: Sequence[writer.Row]) -> Iterator[writer.Shard]:
    """The files of a split, of nearly equal size."""
    count = -(-len(rows) // target.per_file)
    for number, part in enumerate(np.array_split(np.arange(len(rows)), count)):
        name = f"{target.dataset}-{split}.{reader.FORMAT}-{number:05d}-of-{count:05d}"
        yield writer.Shard(target.folder / name, [rows[i] for i in part])


def _record_plan(target: Target, splits: Mapping[str, Sequence[writer.Row]]) -> bool:
    """Records which images the set is made of. False if the set is complete already.

    ConfigError if the folder holds a set of other images.
    """
    path = target.folder / PLAN
    described = [
        (target.folder / f"{name}.json").is_file() for name in ("dataset_info", "features")
    ]
    lines = [f"{name} {row[1]} {row[2]}" for name, rows in splits.items() for row in rows]
    plan = {"images": len(lines), "digest": files.digest_of_lines(lines), "per": target.per_file}
    plan |= {"form": target.form.description} if target.form.side else {}
    known = files.read_json(path) if path.is_file() else None
    if known == plan:
        return not all(described)
    if known or any(described) or any(target.folder.glob(f"*{reader.FORMAT}*")):
        content = "a set made by another program"
        if known:
            form = known.get("form", writer.UNCHANGED.description)
            content = f"{known['images']:,} other images or in another form ({form})"
        raise ConfigError(
            f"{target.folder} holds {content}, not these {len(lines):,} ({target.form.description})"
            ". Remove it, or convert to another folder."
        )
    files.write_json(path, plan)
    return True


def _write_all(
    shards: list[writer.Shard], fields: reader.Fields, form: writer.Form, workers: int
) -> None:
    """Writes the files; logs progress and the remaining time."""
    start = logged = time.monotonic()
    total, done = sum(len(shard.rows) for shard in shards), 0
    for count in _written(shards, fields, form, workers):
        done += count
        now = time.monotonic()
        if now - logged > LOG_SECONDS or done == total:
            logged, rate = now, done / (now - start)
            minutes = (total - done) / rate / 60
            log.info("%d of %d images, %.0f/s, %.0f min left", done, total, rate, minutes)


def _written(
    shards: list[writer.Shard], fields: reader.Fields, form: writer.Form, workers: int
) -> Iterator[int]:
    """Writes the files and yields the number of images of each one when it is complete."""
    if workers < 2:
        yield from (writer.write(shard, fields, form) for shard in shards)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        jobs = [pool.submit(writer.write, shard, fields, form) for shard in shards]
        try:
            for job in concurrent.futures.as_completed(jobs):
                yield job.result()
        except BrokenProcessPool as error:
            raise NotSaved(
                f"A writing process was killed, perhaps for lack of memory. {writer.RESUME}"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
