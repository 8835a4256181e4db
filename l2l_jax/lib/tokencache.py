"""Tokens of augmented views of images, on disk: made once, read at random for ever after.

    FOLDER/about.json                     tokenizer, augmentation, views: what the tokens depend on
    FOLDER/<digest of the keys>/00007.npy uint16 [512, K, h, w], images 3584 to 4095 of a split

A shard is whole or absent, so that a stopped run goes on where it was; several processes make the
shards in turn. The folder must be one that all of them see.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.lib import files, hosts
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.loader import Augment, Host
from l2l_jax.lib.rng import seed_of
from l2l_jax.lib.splits import Split
from l2l_jax.types import Source

log = logging.getLogger(__name__)

SHARD = 512  # images
PROBED = 4  # images made again when a cache is found, to see that it is still true
ALIKE = 0.9  # of their tokens must be the same; other hardware may round a few differently
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


@functools.cache
def _shard(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def any_view(views: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[K, h, w] -> one of them."""
    return views[rng.integers(len(views))]


def claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Makes the folder a cache of tokens of this kind. ConfigError if it is one of another kind."""
    said, about = folder / "about.json", files.as_json(about)
    if not said.exists():
        if hosts.first():
            files.write_json(said, about)
        return
    there = files.read_json(said)
    if there != about:
        keys = [k for k in about if there.get(k) != about[k]]
        listed = [f"  {k}: {there.get(k)!r} there, {about[k]!r} in this run" for k in keys]
        what = "another tokenizer" if "tokenizer" in keys else "other settings"
        raise ConfigError(
            "\n".join([f"{folder} holds tokens made with {what}.", *listed])
            + "\nGive data.token_cache.folder another folder, or leave it empty: caches are then "
            "kept apart by themselves."
        )


def fill(
    folder: Path, source: Source, split: Split, views: int, augment: Augment, tokenize: Tokenize,
    host: Host,
) -> Cached:  # fmt: skip
    """Makes the shards that are missing, this process those whose turn it is, and opens them all.

    View v of an image is augmented by a generator of its key and v, whatever split it is in.
    ConfigError if what is found is not what the images give now.
    """
    folder = folder / split.digest[:16]
    paths = [folder / f"{n:05d}.npy" for n in range(-(-len(split.keys) // SHARD))]
    missing = [n for n, path in enumerate(paths) if not path.exists()]

    def made(rows: range) -> np.ndarray:
        images = [_view(source, split, row, view, augment) for row in rows for view in range(views)]
        tokens = tokenize(np.stack(images)).astype(np.uint16)
        return tokens.reshape(len(rows), views, *tokens.shape[1:])

    if len(missing) < len(paths):
        _probe(folder, split, made, next(n for n in range(len(paths)) if n not in missing))
    for n in (n for n in missing if n % host.count == host.index):
        log.info("tokens: %s, part %d of %d", split.name, n + 1, len(paths))
        rows = range(n * SHARD, min((n + 1) * SHARD, len(split.keys)))
        with files.replacing(paths[n]) as file:
            np.save(file, made(rows))
    hosts.meet(f"tokens of {split.name}")
    if unseen := [path.name for path in paths if not path.exists()]:
        raise ConfigError(
            f"{folder} lacks {unseen[0]}, which another process made: data.token_cache.folder must "
            "be on a file system that all processes share."
        )
    return Cached(folder, len(split.keys))


def _view(source: Source, split: Split, row: int, view: int, augment: Augment) -> np.ndarray:
    rng = np.random.default_rng((seed_of(view, split.keys[row]), 2))
    return augment(source.read(split.indices[row]), rng)


def _probe(folder: Path, split: Split, made: Callable[[range], np.ndarray], number: int) -> None:
    first = number * SHARD
    rows = range(first, min(first + PROBED, len(split.keys)))
    there, now = _shard(folder / f"{number:05d}.npy")[: len(rows)], made(rows)
    if there.shape != now.shape or np.mean(there == now) < ALIKE:
        raise ConfigError(
            f"{folder} holds other tokens than the images of {split.name} give now: their files "
            "have changed since, or the cache is damaged. Delete that folder."
        )
