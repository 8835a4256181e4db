"""Handwritten digits, 1,797 images of 8x8 grey values, part of scikit-learn.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998 (CC BY 4.0). The
images have nothing to do with those that models here are trained on, which is what audits use them
for. Images of even rows are "train", the others "eval". They are returned as RGB, 8x8.
"""

import functools
from typing import Any

import numpy as np

from l2l_jax.types import Source

EXAMPLE: dict[str, Any] = {}
CLASSES = tuple(f"digit {number}" for number in range(10))
BRIGHTEST = 16  # of the grey values


def load(part: str) -> Source:
    """The part as a Source; a key such as "eval/0017" has the row in the original table."""
    images, labels = _arrays()
    rows = np.arange(len(images))[part == "eval" :: 2]
    keys = tuple(f"{part}/{row:04d}" for row in rows)

    def read(at: int) -> np.ndarray:
        grey = np.rint(images[rows[at]] * (255 / BRIGHTEST)).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)

    return Source(keys, labels[rows].astype(np.int32), CLASSES, read)


@functools.cache
def _arrays() -> tuple[np.ndarray, np.ndarray]:
    """(grey values [N, 8, 8], labels [N])."""
    from sklearn.datasets import load_digits

    table: Any = load_digits()
    return table.images, table.target
