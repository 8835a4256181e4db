"""Caches decoded images: `Source.read` returns the same pixels, faster.

    memory   a dict in this process; refused if the images do not fit into the free memory
    disk     $L2L_CACHE/images/<2>/<62 hex digits>.rgb for every image: height, width, pixels, and a
             digest of these. The digits are a digest of the image's stamp, so that a changed image
             has another file

Reading such a whole file takes half as long as memory-mapping it as .npy (measured, 500x375). Each
process checks the digest of a file when it first reads it, and again if the file has changed since:
0.3 ms for such an image once, where cropping and resizing it take 2 ms each time.
"""

import hashlib
import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from l2l_jax.lib import files, sealed
from l2l_jax.lib.errors import BrokenImage, ConfigError, reason
from l2l_jax.types import Source

log = logging.getLogger(__name__)

KINDS = ("", "memory", "disk")
SIZED_IMAGES = 64  # images that are read to estimate the memory that all need
MAX_MEMORY_SHARE = 0.8  # of the free memory
DECODER_VERSION = 1  # to be incremented when data/images.py returns other pixels


def check(kind: str, workers: int) -> None:
    """ConfigError if the kind does not exist, or is "memory" with worker processes."""
    if kind not in KINDS:
        raise ConfigError(f"data.cache is '', 'memory' or 'disk', not {kind!r}.")
    if kind == "memory" and workers:
        raise ConfigError(
            f"data.cache='memory' with runtime.workers={workers}: every one of these processes "
            "would hold all images. Use --config.data.cache=disk, or --config.runtime.workers=0."
        )


def cached(
    sources: dict[str, Source], rows: Mapping[str, np.ndarray], kind: str
) -> dict[str, Source]:
    """The sources {part: source}, which cache the images in rows {part: rows} at their first read.

    ConfigError if the images do not fit into memory, or if a source has no stamps for the disk.
    """
    if not kind:
        return sources
    unique = {part: np.unique(each) for part, each in rows.items() if len(each)}
    if kind == "disk":
        return sources | {part: on_disk(sources[part], each) for part, each in unique.items()}
    in_dicts = sources | {part: in_memory(sources[part], each) for part, each in unique.items()}
    needed = sum(_estimated_bytes(in_dicts[part], each) for part, each in unique.items())
    check_memory(needed, sum(map(len, unique.values())), free_memory())
    return in_dicts


def in_memory(source: Source, rows: np.ndarray) -> Source:
    """The source with these rows cached in a dict; their images are read-only."""
    chosen, images, lock = set(rows.tolist()), {}, threading.Lock()

    def read(row: int) -> np.ndarray:
        row = int(row)
        if row not in chosen:
            return source.read(row)
        with lock:
            image = images.get(row)
        if image is None:
            image = _read_only(source.read(row))
            with lock:
                image = images.setdefault(row, image)
        return image

    return replace(source, read=read)


def on_disk(source: Source, rows: np.ndarray) -> Source:
    """The source with these rows cached as files; their images are read-only.

    When writing fails, one warning is logged and no more files are written.
    """
    if (stamp := source.stamp) is None:
        raise ConfigError(
            "data.cache='disk' needs a data set of files, whose changes are noticed; this one has "
            "none. Use --config.data.cache=memory, or leave it empty."
        )
    chosen, folder, failures = set(rows.tolist()), files.cache_dir() / "images", []
    checked = np.zeros(len(source.keys), np.int64)  # modification times of files found intact

    def read(row: int) -> np.ndarray:
        row = int(row)
        if row not in chosen:
            return source.read(row)
        try:
            path = path_of(folder, stamp(row))
        except OSError:  # the image file is missing: source.read raises the right error
            return source.read(row)
        image, checked[row] = _load(path, int(checked[row]))
        if image is None:
            image = _read_only(source.read(row))
            if not failures:
                try:
                    _save(path, image)
                except OSError as error:
                    failures.append(error)
                    text = "%s takes no more images (%s); no more are cached"
                    log.warning(text, folder, reason(error))
        return image

    return replace(source, read=read)


def path_of(folder: Path, stamp: str) -> Path:
    """The file of the image with this stamp."""
    digest = hashlib.sha256(f"{DECODER_VERSION} {stamp}".encode()).hexdigest()
    return folder / digest[:2] / f"{digest[2:]}.rgb"


def _key(path: Path) -> str:
    return f"{path.parent.name}{path.stem}"


def _save(path: Path, image: np.ndarray) -> None:
    def write(file: BinaryIO) -> None:
        file.write(np.array(image.shape[:2], "<u4").tobytes())
        file.write(np.ascontiguousarray(image).data)

    sealed.write(path, _key(path), write)


def _load(path: Path, checked: int) -> tuple[np.ndarray | None, int]:
    """(the image uint8 [H, W, 3], or None if there is no intact file; its modification time).

    checked: the modification time at which the file was found intact before; 0: never.
    """
    try:
        with path.open("rb", buffering=0) as file:
            changed = os.fstat(file.fileno()).st_mtime_ns
            data = file.read()
    except OSError:
        return None, 0
    content = memoryview(data)[: -sealed.SIZE] if changed == checked else None
    content = content or sealed.opened(data, _key(path))
    if not content:
        sealed.log_damage(path)
        return None, 0
    height, width = np.frombuffer(content, "<u4", 2).tolist()
    return np.frombuffer(content, np.uint8, offset=8).reshape(height, width, 3), changed


def _read_only(image: np.ndarray) -> np.ndarray:
    """The image, or a read-only copy if it is writable: several readers share it."""
    if image.flags.writeable:
        image = image.copy()
        image.setflags(write=False)
    return image


def _estimated_bytes(source: Source, rows: np.ndarray) -> float:
    """Bytes of the images in these rows, estimated from an evenly spaced sample of them."""
    count = min(SIZED_IMAGES, len(rows))
    sample, sizes = rows[np.linspace(0, len(rows) - 1, count, dtype=int)], []
    for row in sample:
        try:
            sizes.append(source.read(row).nbytes)
        except BrokenImage:  # image_folder.drop_unreadable handles it
            continue
    return len(rows) * float(np.mean(sizes or [0]))


def check_memory(needed: float, count: int, free: float) -> None:
    """ConfigError if `count` images of `needed` bytes in all do not fit into `free` bytes."""
    if needed > MAX_MEMORY_SHARE * free:
        raise ConfigError(
            f"data.cache='memory' would hold {count:,} images in about {needed / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free. Use --config.data.cache=disk, or choose fewer images "
            "(split.images_per_class)."
        )
    log.info("%s images will be cached in memory, about %.1f GB", f"{count:,}", needed / 1e9)


def free_memory() -> float:
    """Bytes this process can still use, on the machine and in its container; inf if unknown."""
    free = [float("inf")]
    if available := re.search(r"MemAvailable:\s+(\d+) kB", _text("/proc/meminfo")):
        free.append(int(available[1]) * 1024)
    limit, used = _text("/sys/fs/cgroup/memory.max"), _text("/sys/fs/cgroup/memory.current")
    if limit.strip().isdigit() and used.strip().isdigit():
        reclaimable = re.search(r"^inactive_file (\d+)", _text("/sys/fs/cgroup/memory.stat"), re.M)
        free.append(int(limit) - int(used) + (int(reclaimable[1]) if reclaimable else 0))
    return min(free)


def _text(path: str) -> str:
    """The content of a file, or "" if it cannot be read."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""
