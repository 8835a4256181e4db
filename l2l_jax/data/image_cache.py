"""Decoded images, kept: `Source.read` gives the same pixels, sooner.

    memory   a dict in this process; refused if the images will not fit
    disk     $L2L_CACHE/images/<2>/<62 hex digits>.rgb for every image: height, width, pixels. The
             digits are a digest of the image's stamp, so that a changed image is another file

Reading such a file whole takes half as long as mapping a .npy of it (measured, 500x375).
"""

import hashlib
import logging
import re
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

from l2l_jax.lib import files
from l2l_jax.lib.errors import BrokenImage, ConfigError
from l2l_jax.types import Source

log = logging.getLogger(__name__)

KINDS = ("", "memory", "disk")
SAMPLE = 64  # images whose size is taken for that of all
SHARE = 0.8  # of the free memory that may be filled
DECODER = 1  # counts changes of data/images.py that give other pixels
Rows = dict[str, np.ndarray]  # {part: rows of its source}


def check(kind: str, workers: int) -> None:
    """ConfigError for a kind that does not exist, or that processes cannot share."""
    if kind not in KINDS:
        raise ConfigError(f"data.cache is '', 'memory' or 'disk', not {kind!r}.")
    if kind == "memory" and workers:
        raise ConfigError(
            f"data.cache='memory' with runtime.workers={workers}: every one of these processes "
            "would hold all images. Say --config.data.cache=disk, or --config.runtime.workers=0."
        )


def cached(sources: dict[str, Source], rows: Rows, kind: str) -> dict[str, Source]:
    """The sources with the given rows kept from when they are first read; others are read anew.

    ConfigError if they do not fit into memory, or if a source cannot tell that an image changed.
    """
    if not kind:
        return sources
    rows = {part: np.unique(some) for part, some in rows.items() if len(some)}
    if kind == "disk":
        return sources | {part: on_disk(sources[part], rows[part]) for part in rows}
    kept = sources | {part: in_memory(sources[part], rows[part]) for part in rows}
    needed = sum(_size(kept[part], some) for part, some in rows.items())
    check_room(needed, sum(map(len, rows.values())), free_memory())
    return kept


def in_memory(source: Source, rows: np.ndarray) -> Source:
    """The source with these rows kept in a dict."""
    wanted, kept, lock = set(rows.tolist()), {}, threading.Lock()

    def read(at: int) -> np.ndarray:
        at = int(at)
        if at not in wanted:
            return source.read(at)
        with lock:
            image = kept.get(at)
        if image is None:
            image = _frozen(source.read(at))
            with lock:
                image = kept.setdefault(at, image)
        return image

    return replace(source, read=read)


def on_disk(source: Source, rows: np.ndarray) -> Source:
    """The source with these rows kept as files. A disk that cannot be written to is told once."""
    if source.stamp is None:
        raise ConfigError(
            "data.cache='disk' needs a data set of files, which tell when they change; this one "
            "cannot. Say --config.data.cache=memory, or leave it empty."
        )
    wanted, folder, told = set(rows.tolist()), files.cache_dir() / "images", []

    def read(at: int) -> np.ndarray:
        at = int(at)
        if at not in wanted:
            return source.read(at)
        try:
            path = path_of(folder, source.stamp(at))
        except OSError:  # the file is gone: its reader says it best
            return source.read(at)
        image = _load(path)
        if image is None:
            image = _frozen(source.read(at))
            if not told:
                try:
                    _save(path, image)
                except OSError as error:
                    told.append(error)
                    log.warning("%s takes no more images (%s); going on without", folder, error)
        return image

    return replace(source, read=read)


def path_of(folder: Path, stamp: str) -> Path:
    """Where the image with this stamp is kept."""
    digest = hashlib.sha256(f"{DECODER} {stamp}".encode()).hexdigest()
    return folder / digest[:2] / f"{digest[2:]}.rgb"


def _save(path: Path, image: np.ndarray) -> None:
    with files.replacing(path) as file:
        file.write(np.array(image.shape[:2], "<u4").tobytes())
        file.write(np.ascontiguousarray(image).data)


def _load(path: Path) -> np.ndarray | None:
    """The image, or None if there is no such file, or none that is whole."""
    try:
        with path.open("rb", buffering=0) as file:
            data = file.read()
    except OSError:
        return None
    if len(data) < 8:
        return None
    height, width = np.frombuffer(data, "<u4", 2).tolist()
    if len(data) != 8 + 3 * height * width:
        return None
    return np.frombuffer(data, np.uint8, offset=8).reshape(height, width, 3)


def _frozen(image: np.ndarray) -> np.ndarray:
    """What many readers share nobody may change."""
    if image.flags.writeable:
        image = image.copy()
        image.setflags(write=False)
    return image


def _size(source: Source, rows: np.ndarray) -> float:
    """Bytes of these rows, by the first few of them."""
    spread, sizes = rows[np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows)), dtype=int)], []
    for at in spread:
        try:
            sizes.append(source.read(at).nbytes)
        except BrokenImage:  # what to do about it is asked elsewhere
            continue
    return len(rows) * float(np.mean(sizes or [0]))


def check_room(needed: float, count: int, free: float) -> None:
    """ConfigError if so many bytes are more than may be filled."""
    if needed > SHARE * free:
        raise ConfigError(
            f"data.cache='memory' would hold {count:,} images in about {needed / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free. Say --config.data.cache=disk, or ask for fewer images "
            "(split.images_per_class)."
        )
    log.info("%s images will be kept in memory, about %.1f GB", f"{count:,}", needed / 1e9)


def free_memory() -> float:
    """Bytes this process may still take, by the machine and by its container; inf if unknown."""
    free = [float("inf")]
    if said := re.search(r"MemAvailable:\s+(\d+) kB", _text("/proc/meminfo")):
        free.append(int(said[1]) * 1024)
    limit, used = _text("/sys/fs/cgroup/memory.max"), _text("/sys/fs/cgroup/memory.current")
    if limit.strip().isdigit() and used.strip().isdigit():
        given_back = re.search(r"^inactive_file (\d+)", _text("/sys/fs/cgroup/memory.stat"), re.M)
        free.append(int(limit) - int(used) + (int(given_back[1]) if given_back else 0))
    return min(free)


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
