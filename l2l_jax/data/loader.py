"""Batches by random access (grain).

The batch of a step is a pure function of (seed, step, host, number of hosts). There is no iterator
state to save, and the global batch is the same, row by row, for any number of hosts.
"""

import dataclasses
import functools
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

import grain
import numpy as np
from absl import flags

from l2l_jax.data import images
from l2l_jax.types import Source

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Subset:
    """The images of a source at `indices`, as a sequence."""

    source: Source
    indices: Sequence[int] | np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.source.read(self.indices[index])


class Examples(Protocol):
    """A sequence of arrays, such as a Subset or token_cache.TokenViews."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


TrainInput = tuple[Examples, Augment]  # (examples, augmentation that is applied to each)


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """An endless sequence of augmented examples; every epoch has its own random order.

    Grain's shuffle costs 0.4 ms per example (measured, 2 cores); this costs one permutation per
    epoch.
    """

    examples: Examples
    augment: Augment
    seed: int

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> np.ndarray:
        epoch, position = divmod(index, len(self.examples))
        example = self.examples[_permutation(self.seed, epoch, len(self.examples))[position]]
        return self.augment(example, np.random.default_rng((self.seed, 1, index)))


@functools.lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, epoch)).permutation(size)


@dataclasses.dataclass(frozen=True)
class Host:
    """This process among all that read the data, and how it reads."""

    index: int = 0
    count: int = 1
    threads: int = 8
    workers: int = 0  # further processes that read; 0: this process reads by itself


Batches = Generator[np.ndarray, None, None]


def train_batches(
    examples: Examples, augment: Augment, batch: int, seed: int, start: int, host: Host
) -> Batches:
    """Endless batches of augmented examples [batch / hosts, ...], from step `start` on.

    Every epoch has another order. batch: size of the global batch, divisible by the hosts.
    """
    return _iterate(grain.MapDataset.source(Shuffled(examples, augment, seed)), batch, start, host)


def rows_of_step(count: int, batch: int, seed: int, step: int, host: Host) -> np.ndarray:
    """int32 [batch / hosts]: which of `count` examples train_batches gives this host in a step."""
    own = batch // host.count
    first = step * batch + host.index * own
    places = (divmod(index, count) for index in range(first, first + own))
    return np.array([_permutation(seed, epoch, count)[at] for epoch, at in places], np.int32)


def eval_batches(subset: Subset, size: int, batch: int, host: Host) -> Batches:
    """Batches uint8 [batch / hosts, size, size, 3] of the central crops, in order, each once.

    The last image is repeated to fill the last batch, so that all batches have the same shape.
    """
    missing = -len(subset) % batch
    padded = Subset(subset.source, [*subset.indices, *[subset.indices[-1]] * missing])
    data = grain.MapDataset.source(padded).map(lambda image: images.resize_crop(image, size))
    return _iterate(data, batch, 0, host)


def _ignore_interrupts(index: int, count: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the main process ends its workers by itself."""
    del index, count
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _iterate(data: grain.MapDataset, batch: int, start: int, host: Host) -> Batches:
    """Batches from step `start` on. Host h of n reads the h-th of n equal blocks of their rows."""
    batches = data.batch(batch // host.count, drop_remainder=True)
    batches = batches.slice(slice(host.index, None, host.count)).slice(slice(start, None))
    options = grain.ReadOptions(num_threads=host.threads, prefetch_buffer_size=2 * host.threads)
    stream = batches.to_iter_dataset(options)
    if host.workers:
        if not flags.FLAGS.is_parsed():  # grain reads an absl flag in its workers
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=host.workers)
        stream = stream.mp_prefetch(options, worker_init_fn=_ignore_interrupts)
    iterator = iter(stream)
    try:
        yield from iterator
    finally:
        iterator.close()
