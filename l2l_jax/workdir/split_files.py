"""Splits as JSON files in a workdir, so that a continued run uses the same images.

Every file names all splits of the run with their digests (`beside`), so that a missing file, or one
of another run, is noticed.
"""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.data.splits import PARTS, Split, pick
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, Damaged, not_saved
from l2l_jax.types import Source
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)

RESTORE = "Restore it from a copy, or start again in another workdir."


def save(folder: Path, splits: Mapping[str, Split]) -> None:
    """Writes all splits of the workdir `folder`, or none; those that are there are not changed.

    The folder of splits gets its name after every file in it is written. NotSaved if that fails.
    """
    target = Workdir(folder).splits
    digests = {name: split.digest for name, split in splits.items()}
    if target.exists():
        for name in splits:
            if not Workdir(folder).split(name).is_file():
                files.write_json(Workdir(folder).split(name), _record(splits[name], digests))
        return
    temporary = target.with_name(f".{target.name}")
    files.remove(temporary)
    for name, split in splits.items():
        path = temporary / Workdir(folder).split(name).name
        files.write_json(path, _record(split, digests))
    try:
        temporary.rename(target)
    except OSError as error:
        raise not_saved(target, error) from error


def _record(split: Split, digests: Mapping[str, str]) -> dict[str, Any]:
    """A split as JSON; digests: of all splits of the run."""
    record = dataclasses.asdict(split)
    record |= {"count": len(split.keys), "digest": split.digest, "beside": dict(digests)}
    del record["indices"]
    return record


def exist(folder: Path) -> bool:
    """Whether the workdir has splits. ConfigError if they are missing, and phases have begun."""
    workdir = Workdir(folder)
    if any(workdir.splits.glob("*.json")):
        return True
    if any(workdir.checkpoints("").glob("*/[0-9]*")):
        raise ConfigError(
            f"{workdir.splits} is missing or empty: it lists the images of this run. {RESTORE}"
        )
    return False


def load(
    folder: Path, sources: Mapping[str, Source], make: Callable[[], Mapping[str, Split]]
) -> dict[str, Split]:
    """{name: split} of the workdir `folder`, which has splits, in the order in which it saved them.

    make: chooses the splits of the run as at its start. It takes the place of a file that is
    missing or damaged, if that gives the same images. ConfigError if it does not, or if a file was
    edited, lists images that its data set no longer has, or shares images with another side.
    """
    workdir = Workdir(folder)
    records, lost = _read(workdir)
    digests: dict[str, str] = {}
    for name, record in records.items():
        beside = record.get("beside", {}) | {name: record["digest"]}
        for other, digest in beside.items():
            if digests.setdefault(other, digest) != digest:
                raise ConfigError(
                    f"{workdir.split(name)} belongs to another run than the files beside it: they "
                    f"differ in the digest of {other}. {RESTORE}"
                )
    splits = {name: _split(workdir, name, record, sources) for name, record in records.items()}
    if missing := {name: lost.get(name, "") for name in sorted({*digests, *lost} - {*records})}:
        made = make()
        for name, text in missing.items():
            splits[name] = _again(workdir, name, text, made, digests.get(name))
    _check_disjoint(workdir, splits)
    return {name: splits[name] for name in digests}


def _read(workdir: Workdir) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """({name: record}, {name: why it cannot be read})."""
    records, lost = {}, {}
    for path in sorted(workdir.splits.glob("*.json")):
        try:
            record = files.read_object(path, "")
            if not {"part", "keys", "digest", "skipped"} <= record.keys():
                raise Damaged(f"{path} is no split.")
            records[path.stem] = record
        except Damaged as error:
            lost[path.stem] = str(error).strip()
    return records, lost


def _split(
    workdir: Workdir, name: str, record: Mapping[str, Any], sources: Mapping[str, Source]
) -> Split:
    if record["part"] not in sources:
        known = ", ".join(sources)
        raise ConfigError(
            f"{workdir.split(name)} names the part {record['part']!r}; there are {known}. {RESTORE}"
        )
    source = sources[record["part"]]
    row_of = {key: row for row, key in enumerate(source.keys)}
    if absent := [key for key in record["keys"] if key not in row_of]:
        raise ConfigError(
            f"{workdir.split(name)} lists {len(absent)} images that the data set no longer "
            f"has, such as {absent[0]}. Restore them, or start again in another workdir."
        )
    rows = np.array([row_of[key] for key in record["keys"]], np.int64)
    split = pick(name, record["part"], source, rows, tuple(record["skipped"]))
    if split.digest != record["digest"]:
        raise ConfigError(
            f"{workdir.split(name)} does not match its digest; it was edited after the run. "
            f"{RESTORE}"
        )
    return split


def _again(
    workdir: Workdir, name: str, text: str, made: Mapping[str, Split], digest: str | None
) -> Split:
    """A split whose file is missing or damaged (text: how), chosen again; its file is removed."""
    path = workdir.split(name)
    text = text or f"{path} is missing."
    if name not in made or made[name].digest != digest:
        raise ConfigError(
            f"{text} The config does not give the same images as at the start. {RESTORE}"
        )
    log.warning("%s It is made again from the config, and has the same images.", text)
    files.remove(path)
    return made[name]


def _check_disjoint(workdir: Workdir, splits: Mapping[str, Split]) -> None:
    """ConfigError if two sides share an image."""
    for first, second in itertools.combinations(splits.values(), 2):
        if first.part != second.part or _side(first) == _side(second):
            continue
        if both := sorted(set(first.keys) & set(second.keys)):
            raise ConfigError(
                f"{workdir.split(first.name)} and {workdir.split(second.name)} share {len(both)} "
                f"images, such as {both[0]}. An image cannot be on two sides. {RESTORE}"
            )


def _side(split: Split) -> str:
    return split.name.removesuffix(PARTS["eval"])
