"""The image files of one part of a data set, in any arrangement of folders."""

import dataclasses
import functools
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.data import images
from l2l_jax.lib import bounded, files, sealed
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.types import Source

log = logging.getLogger(__name__)

LISTING = "2"  # to be changed when list_files finds other files: stored lists are then made anew
MIN_STORED_PATHS = 20_000  # images in a tree whose list of paths is stored in the cache
MIN_UNCHANGED_NS = 2 * 10**9  # nanoseconds for which no folder of such a tree has changed
MAX_TIMES_MEDIAN = 10  # size of a class, in medians of all classes, beyond which labels are wrong


@dataclasses.dataclass(frozen=True)
class ImageTree:
    """Image files sorted by key. A path is where the file is; a key is the same in any layout."""

    base: Path
    keys: tuple[str, ...]
    paths: tuple[str, ...]  # below base
    labels: np.ndarray  # [N] int32
    classes: tuple[str, ...]

    def source(self, **fields: Any) -> Source:
        """The files as a Source; fields: further fields of it, such as titles."""

        def read(row: int) -> np.ndarray:
            path = self.base / self.paths[row]
            return images.decode(path, str(path))

        def stamp(row: int) -> str:
            return files.file_stamp(f"{self.base}/{self.paths[row]}")

        return Source(
            self.keys, self.labels, self.classes, read, fallible=True, stamp=stamp, **fields
        )


def make(base: Path, rows: Iterable[tuple[str, str, str]], classes: Sequence[str]) -> ImageTree:
    """The tree of rows (key, path below base, class), in any order.

    DataMissing if there are no rows, ConfigError if two rows have the same key.
    """
    ordered = sorted(rows)
    if not ordered:
        raise DataMissing(f"There are no images in {base}.")
    keys, paths, names = zip(*ordered, strict=True)
    if len(set(keys)) < len(keys):
        double, _ = Counter(keys).most_common(1)[0]
        both = [path for key, path in zip(keys, paths, strict=True) if key == double]
        raise ConfigError(f"{base} has the image {double} more than once: {', '.join(both[:5])}.")
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of[name] for name in names], np.int32)
    return ImageTree(base, keys, paths, labels, tuple(classes))


def list_images(base: Path, name: str) -> list[str]:
    """Sorted paths below base of all images anywhere below base / name, as `list_files` finds them.

    The list of a large tree is stored in files.cache_dir() and used while no folder changes.
    """
    root, start = base / name, time.time_ns()
    cache = (
        files.cache_dir() / "index" / f"{files.digest_of_lines([LISTING, str(root.resolve())])}.npz"
    )
    if not (paths := _read_cache(cache)):
        folders, paths = list_files(root)
        if len(paths) >= MIN_STORED_PATHS:
            times = [os.stat(folder).st_mtime_ns for folder in folders]
            if max(times) < start - MIN_UNCHANGED_NS:
                arrays: dict[str, Any] = dict(
                    times=times, folders=_to_bytes(folders), found=_to_bytes(paths)
                )
                write = functools.partial(np.savez_compressed, **arrays)
                sealed.write_if_possible(cache, cache.name, write)
    return [f"{name}/{path}" for path in paths]


def list_files(
    root: Path, base: Path | None = None, seen: set[str] | None = None
) -> tuple[list[str], list[str]]:
    """(folders, sorted paths of images below root), all levels.

    Names that begin with a dot are left out. A link to a folder outside of `base`, the whole data
    set (by default root), is followed. One to a folder inside of base, or to one that contains
    base, is not: its images have a place already. No folder is read twice. seen: the real paths of
    folders that are read already, to which those read here are added. DataMissing for a folder that
    cannot be read, ConfigError for names that are no UTF-8 text or have line breaks.
    """
    seen, real_base = set() if seen is None else seen, os.path.realpath(base or root)
    folders, found, waiting = [], [], [(str(root), "", os.path.realpath(root))]
    while waiting:
        where, prefix, real = waiting.pop()
        if real in seen:
            log.warning("%s is read at another place already and not used here", where)
            continue
        seen.add(real)
        folders.append(where)
        for entry in _entries(where):
            if entry.name[0] == ".":
                continue
            if is_folder(entry):
                check_name(entry.path, entry.name)
                inner = f"{prefix}{entry.name}/"
                if not entry.is_symlink():
                    waiting.append((entry.path, inner, os.path.join(real, entry.name)))
                elif leaves(target := os.path.realpath(entry.path), real_base, entry.path):
                    waiting.append((entry.path, inner, target))
            elif entry.name.lower().endswith(images.SUFFIXES):
                check_name(entry.path, entry.name)
                found.append(prefix + entry.name)
    return folders, sorted(found)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, in reverse order of names: the last is waited for first."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        raise DataMissing(
            f"The folder {folder} cannot be read: {error.strerror}. Correct its permissions, or "
            "move it out of the data set."
        ) from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; the log names links that lead nowhere."""
    try:
        found = entry.is_dir()
        broken = not found and entry.is_symlink() and not os.path.exists(entry.path)
    except OSError:  # links in a circle
        found, broken = False, True
    if broken:
        log.warning("%s is a link that leads nowhere", entry.path)
    return found


def leaves(target: str, root: str, link: str) -> bool:
    """Whether a link leads out of a folder; if not, the log says that it is not followed.

    target and root are real paths. A hidden folder inside of root counts as outside: it is read by
    links only.
    """
    inside = os.path.commonpath((target, root)) in (target, root)
    hidden = inside and any(part[0] == "." for part in Path(target[len(root) :]).parts)
    if inside and not hidden:
        log.warning(
            "%s is a link to %s, which is read at its own place; not followed", link, target
        )
    return hidden or not inside


def check_name(path: str, name: str) -> None:
    """ConfigError for a name that cannot stand in a list of images: no UTF-8, or a line break."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raw = os.fsencode(path)
        raise ConfigError(
            f"The name of {raw!r} is no UTF-8 text. Rename it, or all at once, such as by "
            "`convmv -f latin1 -t utf8 -r --notest FOLDER`."
        ) from None
    if "\n" in name or "\r" in name:
        raise ConfigError(f"The name of {path!r} has a line break. Rename it.")


def _read_cache(path: Path) -> list[str]:
    """The stored paths, if no folder has changed since; else []."""
    if not (stored := sealed.read(path, path.name)):
        return []
    try:
        arrays = bounded.npz_of(stored, path)
        folders, times = _from_bytes(arrays["folders"]), arrays["times"].tolist()
        for folder, then in zip(folders, times, strict=True):
            if not os.path.isdir(folder) or os.stat(folder).st_mtime_ns != then:
                return []
        return _from_bytes(arrays["found"])
    except (ValueError, KeyError) as error:  # the list is made again
        log.warning("%s is damaged and not used: %s", path, error)
        return []


def _to_bytes(names: list[str]) -> np.ndarray:
    """The names as one uint8 array, separated by zeros."""
    return np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), np.uint8)


def _from_bytes(array: np.ndarray) -> list[str]:
    """Inverse of _to_bytes."""
    return array.tobytes().decode("utf-8", "surrogateescape").split("\0")


def check_train_classes(found: Iterable[str], known: Sequence[str], where: Path) -> list[str]:
    """The classes found, in the order of the known ones.

    ConfigError if one of them is unknown, DataMissing if there are fewer than two.
    """
    found = set(found)
    if unknown := sorted(found.difference(known)):
        raise ConfigError(
            f"{where} has {len(unknown)} folders that are no classes of this data set: "
            f"{', '.join(unknown[:5])}. Classes look like {known[0]!r}. For other images use "
            "--config.data.name=folder."
        )
    if len(found) < 2:
        content = f"only the class {found.pop()}" if found else "no images"
        raise DataMissing(f"{where} has {content}; at least two classes are needed.")
    return [name for name in known if name in found]


def check_eval_classes(found: set[str], known: Sequence[str], eval: Path, train: Path) -> None:
    """ConfigError if there are validation images of classes without training images (known)."""
    if unknown := sorted(found.difference(known)):
        raise ConfigError(
            f"{eval} has classes that {train} lacks: {unknown[:10]}. The training images of "
            f"{len(unknown)} classes are missing; get them, or remove these folders."
        )


def check_class_sizes(labels: np.ndarray, classes: Sequence[str], where: Path) -> None:
    """ConfigError if a class has far more images than the median class: wrong labels."""
    counts = np.bincount(labels, minlength=len(classes))
    median = float(np.median(counts[counts > 0]))
    if counts.max() > MAX_TIMES_MEDIAN * median:
        name = classes[int(counts.argmax())]
        raise ConfigError(
            f"{where} has {counts.max():,} images of {name}, where other classes have {median:g}: "
            "its labels are probably wrong. Sort its images into the folders of their classes."
        )
