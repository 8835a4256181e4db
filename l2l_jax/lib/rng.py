"""Random keys by name: a key is a pure function of (seed, names, steps); there is no state."""

import zlib

import jax
from jaxtyping import Array

from l2l_jax.types import Rng


def key(seed: int, *path: str | int | Array) -> Rng:
    """The key of a seed and a path, e.g. key(0, "unlearn", step, "mask").

    A new consumer of randomness uses a new path and changes no other key.
    """
    return fold(jax.random.key(seed), *path)


def fold(base: Rng, *path: str | int | Array) -> Rng:
    """The key of a path below `base`: folds in the CRC-32 of a name, or a number (also traced)."""
    for part in path:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else part
        base = jax.random.fold_in(base, number)
    return base


def seed_of(seed: int, *path: str | int) -> int:
    """An integer of 31 bits from a seed and a path, for libraries that take integers as seeds."""
    return zlib.crc32(repr((seed, *path)).encode()) & 0x7FFFFFFF
