"""Tokens of K augmented views of each image, on disk: computed once, then read at random.

    FOLDER/about.json                     settings that the tokens depend on: tokenizer, views, ...
    FOLDER/<digest of the keys>/00007.npy uint16 [512, K, h, w], images 3584 to 4095 of a split,
                                          then a digest of the settings, the keys and the tokens

The digest of a shard is checked once at every launch, and a shard that fails is made again. A shard
is written atomically, so that a stopped run continues with the next one. Several processes
share the work: process i of n computes the shards i, i + n, ... All of them must see the folder.
"""

import concurrent.futures
import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.data.loader import Augment, Host
from l2l_jax.data.splits import Split
from l2l_jax.lib import files, hosts, sealed
from l2l_jax.lib.errors import ConfigError, Damaged
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Source

log = logging.getLogger(__name__)

SHARD = 512  # images in a file
MAX_VIEWS_IN_MEMORY = 256  # as pixels
MIN_EQUAL_TOKENS = 0.9  # share of recomputed tokens; other hardware may round differently
Tokenize = Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, 3] -> integers [N, h, w]


@dataclasses.dataclass(frozen=True)
class TokenViews:
    """The tokens of a split's images as a sequence, in the order of the split.

    An item is uint16 [K, h, w]: all views of one image.
    """

    folder: Path
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        number, row = divmod(index, SHARD)
        return np.asarray(_shard(_path(self.folder, number))[row])


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npy"


@functools.lru_cache(maxsize=256)  # open files
def _shard(path: Path) -> np.ndarray:
    """A shard as uint16 [N, K, h, w], memory-mapped."""
    return np.load(path, mmap_mode="r")


def draw_view(views: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the views [K, h, w], drawn uniformly: [h, w]."""
    return views[rng.integers(len(views))]


def record_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings of a new cache; ConfigError if the cache has other settings.

    Called by all processes; ConfigError if one of them does not see the folder. A damaged record is
    written again: shards of other settings do not fit their digest.
    """
    path, settings = folder / "about.json", files.as_json(settings)
    with hosts.fail_together():
        if hosts.is_main() and not _readable(path):
            files.write_json(path, settings)
    if not path.exists():
        raise ConfigError(
            f"{folder} is not seen by all processes: let runtime.token_folder be on a file system "
            "that they share."
        )
    recorded = files.read_object(path)
    if recorded != settings:
        keys = [key for key in settings if recorded.get(key) != settings[key]]
        lines = [
            f"  {key}: {recorded.get(key)!r} there, {settings[key]!r} in this run" for key in keys
        ]
        difference = "another tokenizer" if "tokenizer" in keys else "other settings"
        raise ConfigError(
            "\n".join([f"{folder} holds tokens made with {difference}.", *lines])
            + "\nGive runtime.token_folder another folder, or leave it empty: then every setting "
            "gets a folder of its own."
        )


def _readable(path: Path) -> bool:
    """Whether settings are recorded; one log line if they are damaged."""
    try:
        files.read_object(path, "It is written again.")
    except FileNotFoundError:
        return False
    except Damaged as error:
        log.warning("%s", error)
        return False
    return True


def load_or_compute(
    folder: Path, source: Source, split: Split, views: int, augment: Augment, tokenize: Tokenize,
    host: Host, settings: Mapping[str, Any],
) -> TokenViews:  # fmt: skip
    """The tokens of a split; computes this process's share of the missing and damaged shards.

    View v of an image is augmented by a random generator of its key and v, in any split. The first
    image of every existing shard is tokenised again: ConfigError if that gives other tokens.
    settings: what record_settings was given.
    """
    folder = folder / split.digest[:16]
    about = json.dumps(files.as_json(settings), sort_keys=True)
    count = -(-len(split.keys) // SHARD)

    def augmented(row: int) -> list[np.ndarray]:
        """K views uint8 [H, W, 3] of an image of the split."""
        image, key = source.read(split.indices[row]), split.keys[row]
        generators = (np.random.default_rng((seed_of(view, key), 2)) for view in range(views))
        return [augment(image, rng) for rng in generators]

    def tokens(rows: range) -> np.ndarray:
        """uint16 [len(rows), K, h, w]."""
        parts, images = [], max(1, MAX_VIEWS_IN_MEMORY // views)
        with concurrent.futures.ThreadPoolExecutor(host.threads) as threads:
            for first in range(0, len(rows), images):
                pictures = list(threads.map(augmented, rows[first : first + images]))
                part = tokenize(np.concatenate(pictures)).astype(np.uint16)
                parts.append(part.reshape(len(pictures), views, *part.shape[1:]))
        return np.concatenate(parts)

    with hosts.fail_together():
        for number in range(host.index, count, host.count):
            path = _path(folder, number)
            rows = range(number * SHARD, min((number + 1) * SHARD, len(split.keys)))
            key = f"{about} {split.digest} {number}"
            if sealed.check(path, key):
                _check_shard(path, split, tokens(rows[:1]))
                continue
            log.info("tokens: %s, part %d of %d", split.name, number + 1, count)
            made = tokens(rows)
            sealed.write(path, key, functools.partial(np.save, arr=made))
            _shard.cache_clear()  # it may hold the damaged file
    return TokenViews(folder, len(split.keys))


def _check_shard(path: Path, split: Split, expected: np.ndarray) -> None:
    """ConfigError if the first images of a shard have other tokens than `expected`."""
    stored = _shard(path)[: len(expected)]
    if stored.shape != expected.shape or np.mean(stored == expected) < MIN_EQUAL_TOKENS:
        raise ConfigError(
            f"{path} holds other tokens than the images of {split.name} give now: their files have "
            f"changed since. Delete {path.parent}."
        )
