"""Fashion-MNIST, a bundled subset: 13,000 training and 2,500 test photographs of ten articles.

Xiao, Rasul and Vollgraf 2017, MIT licence; created by launch/prepare/fashion_mnist.py. The 28x28
greyscale photographs are padded with two black pixels on each side and returned as RGB 32x32.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.types import Source

FILE = Path(__file__).parent / "bundled" / "fashion_mnist.npz"
CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

EXAMPLE: dict[str, Any] = {}


def load(part: str) -> Source:
    """The part as a Source; a key such as "train/00017" has the row in the original file."""
    images, labels, original_rows = _arrays(part)
    keys = tuple(f"{part}/{row:05d}" for row in original_rows)

    def read(row: int) -> np.ndarray:
        padded = np.pad(images[row], 2)
        return np.repeat(padded[..., None], 3, axis=2)

    return Source(keys, labels.astype(np.int32), CLASSES, read)


@functools.cache
def _arrays(part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images uint8 [N, 28, 28], labels uint8 [N], rows int32 [N])."""
    with np.load(FILE) as arrays:
        return arrays[f"{part}_images"], arrays[f"{part}_labels"], arrays[f"{part}_rows"]
