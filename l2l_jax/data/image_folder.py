"""A directory of images as a Source, with one class for every sub-folder.

Also finds unreadable images before a run starts.
"""

import concurrent.futures
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from l2l_jax.data import duplicates, image_tree, images
from l2l_jax.lib import hosts
from l2l_jax.lib.errors import BrokenImage, ConfigError, DataMissing, did_you_mean
from l2l_jax.types import Source

log = logging.getLogger(__name__)

BLOCK = 256  # images that a thread checks at a time
LOG_SECONDS = 30  # between two log lines

Keys = dict[str, list[str]]  # of each class
Reasons = dict[int, str]


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
    with os.scandir(root) as found:
        entries = sorted((e for e in found if e.name[0] != "."), key=lambda entry: entry.name)
    folders = [root / each.name for each in entries if image_tree.is_folder(each)]
    folders = [path for path in folders if _has_own_place(path, root)]
    if not folders:
        raise DataMissing(
            f"{root} has no sub-folders. Put the images of each class into a folder of its own, "
            f"such as {root / 'cats' / '001.jpg'}."
        )
    if loose := [p.name for p in entries if p.name.lower().endswith(images.SUFFIXES)]:
        log.warning(
            "%d images directly in %s, such as %s, belong to no class and are not used",
            *(len(loose), root, loose[0]),
        )
    return folders


def _has_own_place(folder: Path, root: Path) -> bool:
    """False for a link to another class folder or to a folder above, which the log names."""
    image_tree.check_name(str(folder), folder.name)
    real, link = os.path.realpath(folder), folder.is_symlink()
    return not link or image_tree.leaves(real, os.path.realpath(root), str(folder))


def keys_by_class(root: Path, prefix: str = "", seen: set[str] | None = None) -> Keys:
    """{class: sorted image keys} of every sub-folder; a key is prefix + path below root.

    A sub-folder without images is left out. Links are followed as in image_tree.list_files, whose
    argument `seen` is.
    """
    keys, seen = {}, {os.path.realpath(root)} if seen is None else seen
    for folder in class_folders(root):
        _, paths = image_tree.list_files(folder, root, seen)
        if paths:
            keys[folder.name] = [f"{prefix}{folder.name}/{path}" for path in paths]
        else:
            log.warning("%s has no images and is not used as a class", folder)
    return keys


def source_of_part(base: Path, train: str, eval: str, part: str) -> Source:
    """The Source of a part that has its own sub-folder, `train` or `eval`.

    The classes are those of the train folder; ConfigError if the other folder has more.
    """
    roots = [os.path.realpath(base / folder) for folder in (train, eval)]
    if os.path.commonpath(roots) in roots:
        raise ConfigError(
            f"{base / train} and {base / eval} are one folder, or one is inside the other: the "
            "model would be evaluated on the images that it is trained on. Name two folders."
        )
    seen: set[str] = set()
    train_keys = keys = keys_by_class(base / train, f"{train}/", seen)
    name = {"train": train, "eval": eval}[part]
    if part == "eval":
        keys = keys_by_class(base / name, f"{name}/", seen)
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


def read_all(source: Source, rows: np.ndarray) -> tuple[Reasons, np.ndarray]:
    """({row: why it cannot be decoded}, uint64 digests [N] of the pixels), after reading all rows.

    Equal pixels have equal digests; the digest of an unreadable image is 0.
    """

    def read(block: np.ndarray) -> tuple[Reasons, np.ndarray]:
        reasons, digests = {}, []
        for row in block.tolist():
            try:
                digests.append(duplicates.digest(source.read(row)))
            except BrokenImage as error:
                reasons[row] = str(error)
                digests.append(0)
        return reasons, np.array(digests, np.uint64)

    blocks = np.array_split(rows, range(BLOCK, len(rows), BLOCK))
    reasons, digests, done, logged = {}, [], 0, time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(hosts.cores()) as pool:
        try:
            for of_block, pixels in pool.map(read, blocks):
                reasons.update(of_block)
                digests.append(pixels)
                done += len(pixels)
                if time.monotonic() - logged > LOG_SECONDS:
                    logged = time.monotonic()
                    log.info("checked %d of %d images", done, len(rows))
        except BaseException:  # such as Ctrl-C: do not read the rest
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return reasons, np.concatenate(digests)


def drop_unreadable(
    source: Source, name: str, rows: np.ndarray, policy: str
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """(rows of images that can be read, reasons why the others cannot, digests of the former).

    The log names every unreadable image. policy: "skip", or "stop" to raise BrokenImage if there is
    one. name: of the split, for the messages.
    """
    if policy not in ("stop", "skip"):
        raise ConfigError(f"data.broken is 'stop' or 'skip', not {policy!r}.")
    reasons, digests = read_all(source, rows)
    if not reasons:
        return rows, (), digests
    for reason in reasons.values():
        log.warning("broken image: %s", reason)
    count = f"{len(reasons)} of the {len(rows)} images of {name} cannot be read"
    if policy == "stop":
        first = "\n  ".join(list(reasons.values())[:10])
        raise BrokenImage(
            f"{count}:\n  {first}\nRepair or remove them, or run with --config.data.broken=skip."
        )
    log.warning("%s and are left out", count)
    whole = ~np.isin(rows, list(reasons))
    return rows[whole], tuple(reasons.values()), digests[whole]
