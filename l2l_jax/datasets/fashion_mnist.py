"""Fashion-MNIST, a bundled subset: 13,000 training and 2,500 test photographs of ten articles.

Xiao, Rasul and Vollgraf 2017, MIT licence; made by launch/prepare/fashion_mnist.py. The 28x28
greyscale photographs are framed by two black pixels and served as RGB 32x32.
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
    """Keys are "train/00017": the part, and the row in the original file of 60,000 or 10,000."""
    images, labels, rows = _arrays(part)
    keys = tuple(f"{part}/{row:05d}" for row in rows)

    def read(at: int) -> np.ndarray:
        framed = np.pad(images[at], 2)
        return np.repeat(framed[..., None], 3, axis=2)

    return Source(keys, labels.astype(np.int32), CLASSES, read)


@functools.cache
def _arrays(part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(FILE) as arrays:
        return tuple(arrays[f"{part}_{name}"] for name in ("images", "labels", "rows"))
