"""A directory of images as a Source, with one class for every sub-folder.

Also finds unreadable images before a run starts.
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
LOG_SECONDS = 30  # between two log lines


def class_folders(root: Path) -> list[Path]:
    """The sub-folders, sorted by name. DataMissing if root does not exist or has none."""
    if not root.is_dir():
        parent = root.parent
        names = sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
        hint = did_you_mean(root.name, names)
        content = f" {parent} holds: {', '.join(names[:10])}." if names else ""
        raise DataMissing(
            f"There is no folder {root}.{hint}{content} It should hold one sub-folder of images "
            "for every class."
        )
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DataMissing(
            f"{root} has no sub-folders. Put the images of each class into a folder of its own, "
            f"such as {root / 'cats' / '001.jpg'}."
        )
    return folders


def keys_by_class(root: Path, prefix: str = "") -> dict[str, list[str]]:
    """{class: sorted image keys} of every sub-folder; a key is prefix + path below root.

    A sub-folder without images is left out. Links to folders are followed, cycles are not.
    """
    keys: dict[str, list[str]] = {}
    for folder in class_folders(root):
        _, paths = image_tree.list_files(folder)
        if paths:
            keys[folder.name] = [f"{prefix}{folder.name}/{path}" for path in paths]
        else:
            log.warning("%s has no images and is not used as a class", folder)
    return keys


def source_of_part(base: Path, train: str, eval: str, part: str) -> Source:
    """The Source of a part that has its own sub-folder, `train` or `eval`.

    The classes are those of the train folder; ConfigError if the other folder has more.
    """
    train_keys = keys = keys_by_class(base / train, f"{train}/")
    name = {"train": train, "eval": eval}[part]
    if part == "eval":
        keys = keys_by_class(base / name, f"{name}/")
    if unknown := sorted(keys.keys() - train_keys.keys()):
        raise ConfigError(f"{base / name} has classes that {base / train} lacks: {unknown[:10]}.")
    return source(base, keys, list(train_keys), str(base / name))


def source(root: Path, keys: Mapping[str, list[str]], classes: list[str], where: str) -> Source:
    """A Source of the files root / key, for keys {class: keys}.

    DataMissing, which names `where`, if there are no keys.
    """
    if not any(keys.values()):
        raise DataMissing(f"There are no images in {where}.")
    rows = ((key, key, name) for name, of_class in keys.items() for key in of_class)
    return image_tree.make(root, rows, classes).source()


def find_unreadable(source: Source, rows: np.ndarray, threads: int = 8) -> dict[int, str]:
    """{row: reason} of the images that cannot be decoded, after reading all of them."""

    def check(block: np.ndarray) -> dict[int, str]:
        reasons = {}
        for row in block.tolist():
            try:
                source.read(row)
            except BrokenImage as error:
                reasons[row] = str(error)
        return reasons

    blocks = np.array_split(rows, range(BLOCK, len(rows), BLOCK))
    reasons, done, logged = {}, 0, time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for block, of_block in zip(blocks, pool.map(check, blocks), strict=True):
            reasons, done = reasons | of_block, done + len(block)
            if time.monotonic() - logged > LOG_SECONDS:
                logged = time.monotonic()
                log.info("checked %d of %d images", done, len(rows))
    return reasons


def drop_unreadable(
    source: Source, name: str, rows: np.ndarray, policy: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(rows of images that can be read, reasons why the others cannot).

    The log names every unreadable image. policy: "skip", or "stop" to raise BrokenImage if there is
    one. name: of the split, for the messages.
    """
    if policy not in ("stop", "skip"):
        raise ConfigError(f"data.broken is 'stop' or 'skip', not {policy!r}.")
    if not source.fallible:
        return rows, ()
    reasons = find_unreadable(source, rows)
    if not reasons:
        return rows, ()
    for reason in reasons.values():
        log.warning("broken image: %s", reason)
    count = f"{len(reasons)} of the {len(rows)} images of {name} cannot be read"
    if policy == "stop":
        first = "\n  ".join(list(reasons.values())[:10])
        raise BrokenImage(
            f"{count}:\n  {first}\nRepair or remove them, or run with --config.data.broken=skip."
        )
    log.warning("%s and are left out", count)
    return rows[~np.isin(rows, list(reasons))], tuple(reasons.values())
