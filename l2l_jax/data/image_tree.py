"""The image files of one part of a data set, whatever their folders look like."""

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.data import images
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.types import Source

LARGE = 20_000  # images, from which on a tree is remembered
SETTLED = 2 * 10**9  # nanoseconds since which nothing in it has changed
MIXED = 10  # a class with so many times the images of the median class is taken for a mistake


@dataclasses.dataclass(frozen=True)
class ImageTree:
    """Sorted by key. A key does not depend on how the files lie, a path does."""

    base: Path
    keys: tuple[str, ...]
    paths: tuple[str, ...]  # below base
    labels: np.ndarray  # [N] int32
    classes: tuple[str, ...]

    def source(self, **more: Any) -> Source:
        def read(at: int) -> np.ndarray:
            path = self.base / self.paths[at]
            return images.decode(path, str(path))

        def stamp(at: int) -> str:
            return files.stamp(f"{self.base}/{self.paths[at]}")

        return Source(
            self.keys, self.labels, self.classes, read, fallible=True, stamp=stamp, **more
        )


def make(base: Path, found: Iterable[tuple[str, str, str]], classes: Sequence[str]) -> ImageTree:
    """found: (key, path below base, class). DataMissing without images, ConfigError for doubles."""
    rows = sorted(found)
    if not rows:
        raise DataMissing(f"There are no images in {base}.")
    keys, paths, names = zip(*rows, strict=True)
    if len(set(keys)) < len(keys):
        double, _ = Counter(keys).most_common(1)[0]
        both = [path for key, path in zip(keys, paths, strict=True) if key == double]
        raise ConfigError(f"{base} has the image {double} more than once: {', '.join(both[:5])}.")
    number = {name: at for at, name in enumerate(classes)}
    labels = np.array([number[name] for name in names], np.int32)
    return ImageTree(base, keys, paths, labels, tuple(classes))


def below(base: Path, name: str) -> list[str]:
    """The images anywhere below base / name, as sorted paths below base; links are followed.

    What large trees hold is kept below files.cache_dir() for as long as no folder changes.
    """
    root, began = base / name, time.time_ns()
    kept = files.cache_dir() / "index" / f"{files.digest_of_lines([str(root.resolve())])}.npz"
    if not (found := _kept(kept)):
        folders, found = list_files(root)
        if len(found) >= LARGE:
            times = [os.stat(folder).st_mtime_ns for folder in folders]
            if max(times) < began - SETTLED:
                lists = {"folders": _packed(folders), "found": _packed(found)}
                files.keep(kept, lambda file: np.savez_compressed(file, times=times, **lists))
    return [f"{name}/{path}" for path in found]


def list_files(root: Path) -> tuple[list[str], list[str]]:
    """(folders, sorted images) below root; links are followed, circles are not."""
    all_folders, found, seen = [], [], set()
    for where, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [folder for folder in folders if folder[0] != "."]
        all_folders.append(where)
        prefix = "" if where == str(root) else f"{Path(where).relative_to(root).as_posix()}/"
        chosen = (n for n in names if n.lower().endswith(images.SUFFIXES) and n[0] != ".")
        found += [prefix + n for n in chosen]
    return all_folders, sorted(found)


def _kept(path: Path) -> list[str]:
    """The images found before, if all of the folders are as they were; else none."""
    if not path.is_file():
        return []
    with np.load(path) as arrays:
        for folder, then in zip(_unpacked(arrays["folders"]), arrays["times"], strict=True):
            if not os.path.isdir(folder) or os.stat(folder).st_mtime_ns != then:
                return []
        return _unpacked(arrays["found"])


def _packed(names: list[str]) -> np.ndarray:
    return np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), np.uint8)


def _unpacked(packed: np.ndarray) -> list[str]:
    return packed.tobytes().decode("utf-8", "surrogateescape").split("\0")


def check_classes(found: Iterable[str], known: Sequence[str], where: Path) -> list[str]:
    """The classes found, sorted as the known ones; at least two, none of them unknown."""
    found = set(found)
    if strangers := sorted(found.difference(known)):
        raise ConfigError(
            f"{where} has {len(strangers)} folders that are no classes of this data set: "
            f"{', '.join(strangers[:5])}. Classes look like {known[0]!r}. For images of one's own: "
            "--config.data.name=folder."
        )
    if len(found) < 2:
        said = f"only the class {found.pop()}" if found else "no images"
        raise DataMissing(f"{where} has {said}; at least two classes are needed.")
    return [name for name in known if name in found]


def check_strangers(names: set[str], known: Sequence[str], val: Path, train: Path) -> None:
    """ConfigError if there are validation images of classes that are not trained on."""
    if strangers := sorted(names.difference(known)):
        raise ConfigError(
            f"{val} has classes that {train} lacks: {strangers[:10]}. The training images of "
            f"{len(strangers)} classes are missing; get them, or remove these folders."
        )


def check_counts(labels: np.ndarray, classes: Sequence[str], where: Path) -> None:
    """ConfigError if a class has so many images that they must be those of others, too."""
    counts = np.bincount(labels, minlength=len(classes))
    usual = float(np.median(counts[counts > 0]))
    if counts.max() > MIXED * usual:
        name = classes[int(counts.argmax())]
        raise ConfigError(
            f"{where} has {counts.max():,} images of {name}, where other classes have {usual:g}: "
            "its labels are probably mixed up. Sort its images into the folders of their classes."
        )
