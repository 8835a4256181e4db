"""Exact duplicates: images with equal pixels, one to be forgotten and one to be kept.

An image is compared by its decoded pixels, not by its file: a copy with another name, other
metadata or another lossless format is the same image. The first launch of a run reads and decodes
every image of its splits anyway, to find the unreadable ones (image_folder.py). The digest that is
taken there costs 0.33 ms for an image of 500 x 375 pixels, beside 1.5 ms of decoding (one core of
an AMD EPYC that has instructions for SHA-256), and 8 bytes of memory. Images that only look alike,
such as other sizes or other JPEG qualities of one photograph, are not found by it; `hashes` are for
them.
"""

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Source

log = logging.getLogger(__name__)

FORGET = ("forget", "forget_eval")  # splits of the forget side
SHOWN = 5  # pairs in a message
SIDE = 8  # of a hash
GREY = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow

Pair = tuple[str, str, str, str]  # (split, key, split, key)


def digest(image: np.ndarray) -> int:
    """64 bits of the SHA-256 of the shape and the pixels of an image, never 0."""
    total = hashlib.sha256(str(image.shape).encode())
    total.update(np.ascontiguousarray(image).data)
    return int.from_bytes(total.digest()[:8]) or 1


def hashes(images: UInt8[np.ndarray, "N H W 3"]) -> Bool[np.ndarray, "N 64"]:
    """The difference hash (dHash) of each image.

    A bit says whether one of 8 x 8 places of the grey image, made small, is darker than its right
    neighbour.
    """
    size = SIDE + 1, SIDE
    found = np.zeros((len(images), SIDE * SIDE), bool)
    for row, image in enumerate(images):
        grey = Image.fromarray((image @ GREY).astype(np.float32))
        small = np.asarray(grey.resize(size, Image.Resampling.BOX))
        small = np.rint(small)  # in a flat place all are equal
        found[row] = (small[:, :-1] < small[:, 1:]).ravel()
    return found


def across_sides(
    splits: Mapping[str, Any], digests: Mapping[str, np.ndarray], sources: Mapping[str, Source]
) -> list[Pair]:
    """The pairs of equal images of which one is on the forget side, and one on another side.

    digests: those of the images of each split, in its order. Equal digests are confirmed by reading
    both images again.
    """
    pairs = []
    for name in FORGET:
        for other in splits.keys() - set(FORGET) if name in splits else ():
            _, left, right = np.intersect1d(digests[name], digests[other], return_indices=True)
            for a, b in zip(left.tolist(), right.tolist(), strict=True):
                rows = [(splits[name], a), (splits[other], b)]
                first, second = (sources[s.part].read(int(s.indices[at])) for s, at in rows)
                if np.array_equal(first, second):
                    pairs.append((name, splits[name].keys[a], other, splits[other].keys[b]))
    return sorted(pairs)


def check(
    splits: Mapping[str, Any],
    digests: Mapping[str, np.ndarray],
    sources: Mapping[str, Source],
    policy: str,
) -> None:
    """ConfigError if there are duplicates across the sides, unless the policy is "allow"."""
    pairs = across_sides(splits, digests, sources)
    if not pairs:
        return
    shown = "\n".join(f"  {a} of {side}, {b} of {other}" for side, a, other, b in pairs[:SHOWN])
    count = f"{len(pairs)} images to forget have the same pixels as an image of another side"
    if policy == "allow":
        log.warning("%s (split.duplicates=allow):\n%s", count, shown)
        return
    raise ConfigError(
        f"{count}:\n{shown}\nNone can be forgotten and kept: remove one of each pair, or put both "
        "on the forget side. --config.split.duplicates=allow runs all the same."
    )
