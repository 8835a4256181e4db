"""Randomness by name: a key is a pure function of (seed, names, steps); nothing is carried."""

import zlib

import jax

from l2l_jax.types import Array


def key(seed: int, *path: str | int | Array) -> Array:
    """key(0, "unlearn", step, "mask"): adding a consumer elsewhere disturbs no other."""
    return fold(jax.random.key(seed), *path)


def fold(base: Array, *path: str | int | Array) -> Array:
    """A key below `base`; names by their CRC-32, numbers (traced ones too) as they are."""
    for part in path:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else part
        base = jax.random.fold_in(base, number)
    return base


def seed_of(seed: int, *path: str | int) -> int:
    """The same idea for libraries that want an integer: 31 bits from a seed and a path."""
    return zlib.crc32(repr((seed, *path)).encode()) & 0x7FFFFFFF
