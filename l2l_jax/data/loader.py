"""Batches by random access (grain). Batch number `step` is a pure function of
(seed, step, host, hosts): there is no iterator state to save, and the global batch is the same,
row by row, for any number of hosts.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np
from absl import flags

from l2l_jax.data import images
from l2l_jax.types import Source

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Picked:
    """The examples of a source at `indices`, for grain."""

    source: Source
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, at: int) -> np.ndarray:
        return self.source.read(self.indices[at])


Rows = tuple[Sequence[np.ndarray], Augment]  # what there is, and what is made of an item


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """An endless stream of augmented examples, each epoch in its own order, by random access.

    Grain's own shuffle costs 0.4 ms an example (measured, 2 cores); this, one permutation an epoch.
    """

    picked: Sequence[np.ndarray]  # Picked, or anything that has its length and items
    augment: Augment
    seed: int

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, at: int) -> np.ndarray:
        epoch, row = divmod(at, len(self.picked))
        image = self.picked[_permutation(self.seed, epoch, len(self.picked))[row]]
        return self.augment(image, np.random.default_rng((self.seed, 1, at)))


@functools.lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, epoch)).permutation(size)


@dataclasses.dataclass(frozen=True)
class Host:
    """This process among all that read the data; threads and workers (processes) it reads with."""

    index: int = 0
    count: int = 1
    threads: int = 8
    workers: int = 0


def train_batches(
    picked: Sequence[np.ndarray], augment: Augment, batch: int, seed: int, start: int, host: Host
) -> Iterator[np.ndarray]:
    """uint8 [batch / hosts, H, W, 3] from step `start` on, for ever; shuffled anew every epoch."""
    return _iterate(grain.MapDataset.source(Shuffled(picked, augment, seed)), batch, start, host)


def eval_batches(picked: Picked, size: int, batch: int, host: Host) -> Iterator[np.ndarray]:
    """uint8 [batch / hosts, size, size, 3], in order, each example once.

    The last batch is filled up by repeating the last example: every batch has the same shape.
    """
    missing = -len(picked) % batch
    padded = Picked(picked.source, [*picked.indices, *[picked.indices[-1]] * missing])
    data = grain.MapDataset.source(padded).map(lambda image: images.resize_crop(image, size))
    return _iterate(data, batch, 0, host)


def _iterate(data: grain.MapDataset, batch: int, start: int, host: Host) -> Iterator[np.ndarray]:
    """Host h of n gets the consecutive rows [h b, (h + 1) b) of each global batch."""
    data = data.batch(batch // host.count, drop_remainder=True)
    data = data.slice(slice(host.index, None, host.count)).slice(slice(start, None))
    options = grain.ReadOptions(num_threads=host.threads, prefetch_buffer_size=2 * host.threads)
    data = data.to_iter_dataset(options)
    if host.workers:
        if not flags.FLAGS.is_parsed():  # grain reads an absl flag in its workers
            flags.FLAGS.mark_as_parsed()
        data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=host.workers))
    iterator = iter(data)
    try:
        yield from iterator
    finally:
        iterator.close()
