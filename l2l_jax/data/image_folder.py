"""A directory of images as a Source: one class for every sub-folder.

Also finds broken files before a run rather than in its fifth hour.
"""

import concurrent.futures
import logging
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from l2l_jax.data import image_tree
from l2l_jax.lib.errors import BrokenImage, ConfigError, DataMissing, did_you_mean
from l2l_jax.types import Source

log = logging.getLogger(__name__)

BLOCK = 256  # images that a thread checks at a time
SAY_EVERY = 30  # seconds


def class_folders(root: Path) -> list[Path]:
    """The sub-folders, sorted. DataMissing if there is no such folder, or none in it."""
    if not root.is_dir():
        parent = root.parent
        there = sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
        hint = did_you_mean(root.name, there)
        listed = f" {parent} holds: {', '.join(there[:10])}." if there else ""
        raise DataMissing(
            f"There is no folder {root}.{hint}{listed} It should hold one sub-folder of images "
            "for every class."
        )
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DataMissing(
            f"{root} has no sub-folders. Put the images of each class into a folder of its own, "
            f"such as {root / 'cats' / '001.jpg'}."
        )
    return folders


def images_by_class(root: Path, prefix: str = "") -> dict[str, list[str]]:
    """{class: sorted keys} of the images in every sub-folder; a key is prefix + path below root.

    Sub-folders without images are no classes; links to folders are followed, circles are not.
    """
    found: dict[str, list[str]] = {}
    for folder in class_folders(root):
        _, below = image_tree.list_files(folder)
        if below:
            found[folder.name] = [f"{prefix}{folder.name}/{name}" for name in below]
        else:
            log.warning("%s has no images and is no class", folder)
    return found


def by_folder(base: Path, train: str, eval: str, part: str) -> Source:
    """The part that lies in a sub-folder of its own; the classes are those of the train folder."""
    known = found = images_by_class(base / train, f"{train}/")
    name = {"train": train, "eval": eval}[part]
    if part == "eval":
        found = images_by_class(base / name, f"{name}/")
    if strangers := sorted(found.keys() - known.keys()):
        raise ConfigError(f"{base / name} has classes that {base / train} lacks: {strangers[:10]}.")
    return source(base, found, list(known), str(base / name))


def source(root: Path, found: Mapping[str, list[str]], classes: list[str], where: str) -> Source:
    """A Source over the files root / key for {class: keys}. DataMissing if there are none."""
    if not any(found.values()):
        raise DataMissing(f"There are no images in {where}.")
    rows = ((key, key, name) for name, keys in found.items() for key in keys)
    return image_tree.make(root, rows, classes).source()


def broken(source: Source, indices: np.ndarray, threads: int = 8) -> dict[int, str]:
    """{row: reason} of the images that cannot be decoded; reads every one of them."""

    def check(rows: np.ndarray) -> dict[int, str]:
        found = {}
        for row in rows.tolist():
            try:
                source.read(row)
            except BrokenImage as error:
                found[row] = str(error)
        return found

    blocks = np.array_split(indices, range(BLOCK, len(indices), BLOCK))
    reasons, done, said = {}, 0, time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for rows, found in zip(blocks, pool.map(check, blocks), strict=True):
            reasons, done = reasons | found, done + len(rows)
            if time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                log.info("looked at %d of %d images for broken ones", done, len(indices))
    return reasons


def readable(
    source: Source, name: str, indices: np.ndarray, policy: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(rows that can be read, reasons of the others). policy "stop" raises on the first finding.

    Every broken file is counted and named in the log, whatever the policy.
    """
    if policy not in ("stop", "skip"):
        raise ConfigError(f"data.broken is 'stop' or 'skip', not {policy!r}.")
    if not source.fallible:
        return indices, ()
    found = broken(source, indices)
    if not found:
        return indices, ()
    for reason in found.values():
        log.warning("broken image: %s", reason)
    count = f"{len(found)} of the {len(indices)} images of {name} cannot be read"
    if policy == "stop":
        some = "\n  ".join(list(found.values())[:10])
        raise BrokenImage(
            f"{count}:\n  {some}\nMend or remove them, or run with --config.data.broken=skip."
        )
    log.warning("%s and are left out", count)
    return indices[~np.isin(indices, list(found))], tuple(found.values())
