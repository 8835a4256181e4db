"""Made-up images of any size: the stand-in of every config's :smoke form, and of tests.

Stripes of data/synthetic.py. An image is a pure function of its key.
"""

from typing import Any

import numpy as np

from l2l_jax.data import synthetic
from l2l_jax.types import Source

EXAMPLE: dict[str, Any] = {}


def load(
    part: str,
    *,
    classes: int = 4,
    class_names: tuple = (),
    train: int = 32,
    eval: int = 16,
    size: int = 32,
) -> Source:
    """`train` and `eval` images of each class, size x size; class_names in place of a count."""
    names = tuple(class_names) or tuple(f"class{i}" for i in range(classes))
    count = train if part == "train" else eval
    keys = sorted(f"{part}/{name}/{i:05d}" for name in names for i in range(count))
    labels = np.array([names.index(key.split("/")[1]) for key in keys], np.int32)

    def read(at: int) -> np.ndarray:
        return synthetic.stripes(keys[at], int(labels[at]), len(names), size, size)

    return Source(tuple(keys), labels, names, read)
