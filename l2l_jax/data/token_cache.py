"""Tokens of augmented views of images, on disk: made once, read at random for ever after.

    FOLDER/about.json                     tokenizer, augmentation, views: what the tokens depend on
    FOLDER/<digest of the keys>/00007.npy uint16 [512, K, h, w], images 3584 to 4095 of a split

A shard is whole or absent, so that a stopped run goes on where it was; several processes make the
shards in turn. The folder must be one that all of them see.
"""

import concurrent.futures
import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.data.loader import Augment, Host
from l2l_jax.data.splits import Split
from l2l_jax.lib import files, hosts
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Source

log = logging.getLogger(__name__)

SHARD = 512  # images
AT_ONCE = 256  # views held in memory as pixels
ALIKE = 0.9  # of the tokens made again must be as found; other hardware may round a few otherwise
Tokenize = Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, 3] -> integers [N, h, w]


@dataclasses.dataclass(frozen=True)
class Cached:
    """The views of a split's images, in the order of the split; what `loader.Picked` is to pixels.

    An item is uint16 [K, h, w].
    """

    folder: Path
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: int) -> np.ndarray:
        number, row = divmod(at, SHARD)
        return np.asarray(_shard(self.folder / f"{number:05d}.npy")[row])


@functools.lru_cache(maxsize=256)  # files that are open at once
def _shard(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def any_view(views: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[K, h, w] -> one of them."""
    return views[rng.integers(len(views))]


def claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Makes the folder a cache of tokens of this kind. ConfigError if it is one of another kind."""
    said, about = folder / "about.json", files.as_json(about)
    if hosts.is_main() and not said.exists():
        files.write_json(said, about)
    hosts.barrier("tokens")
    if not said.exists():
        raise ConfigError(
            f"{folder} is not seen by all processes: let runtime.token_folder be on a file system "
            "that they share."
        )
    there = files.read_json(said)
    if there != about:
        keys = [k for k in about if there.get(k) != about[k]]
        listed = [f"  {k}: {there.get(k)!r} there, {about[k]!r} in this run" for k in keys]
        what = "another tokenizer" if "tokenizer" in keys else "other settings"
        raise ConfigError(
            "\n".join([f"{folder} holds tokens made with {what}.", *listed])
            + "\nGive runtime.token_folder another folder, or leave it empty: caches are then kept "
            "apart by themselves."
        )


def fill(
    folder: Path, source: Source, split: Split, views: int, augment: Augment, tokenize: Tokenize,
    host: Host,
) -> Cached:  # fmt: skip
    """Makes the shards that are missing, this process those whose turn it is, and opens them all.

    View v of an image is augmented by a generator of its key and v, whatever split it is in. The
    first image of every shard that is found is made again: ConfigError if it gives other tokens.
    """
    folder = folder / split.digest[:16]
    paths = [folder / f"{n:05d}.npy" for n in range(-(-len(split.keys) // SHARD))]

    def pictures(row: int) -> list[np.ndarray]:
        image, key = source.read(split.indices[row]), split.keys[row]
        draws = (np.random.default_rng((seed_of(view, key), 2)) for view in range(views))
        return [augment(image, rng) for rng in draws]

    def made(rows: range) -> np.ndarray:
        parts, few = [], max(1, AT_ONCE // views)
        with concurrent.futures.ThreadPoolExecutor(host.threads) as threads:
            for first in range(0, len(rows), few):
                some = list(threads.map(pictures, rows[first : first + few]))
                tokens = tokenize(np.concatenate(some)).astype(np.uint16)
                parts.append(tokens.reshape(len(some), views, *tokens.shape[1:]))
        return np.concatenate(parts)

    with hosts.fail_together():
        for n, path in enumerate(paths):
            rows = range(n * SHARD, min((n + 1) * SHARD, len(split.keys)))
            if n % host.count != host.index:
                continue
            if path.exists():
                _probe(path, split, made(rows[:1]))
                continue
            log.info("tokens: %s, part %d of %d", split.name, n + 1, len(paths))
            with files.replacing(path) as file:
                np.save(file, made(rows))
    return Cached(folder, len(split.keys))


def _probe(path: Path, split: Split, now: np.ndarray) -> None:
    there = _shard(path)[: len(now)]
    if there.shape != now.shape or np.mean(there == now) < ALIKE:
        raise ConfigError(
            f"{path} holds other tokens than the images of {split.name} give now: their files have "
            f"changed since, or the cache is damaged. Delete {path.parent}."
        )
