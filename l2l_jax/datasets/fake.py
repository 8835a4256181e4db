"""Synthetic images of any size, for tests and for the :smoke form of configs.

Stripes (data/synthetic.py); an image is a pure function of its key, its label and its size.
"""

from typing import Any

import numpy as np

from l2l_jax.data import synthetic
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import PIXEL_BOUNDS, Bounds, Source

EXAMPLE: dict[str, Any] = {}
BOUNDS = {
    "classes": Bounds(1, 10**5),
    "train": Bounds(1, 10**7),
    "eval": Bounds(1, 10**7),
    "size": PIXEL_BOUNDS,
}


def load(
    part: str,
    *,
    classes: int = 4,
    class_names: tuple = (),
    train: int = 32,
    eval: int = 16,
    size: int = 32,
) -> Source:
    """`train` or `eval` images of each class, size x size; keys such as "train/class0/00000".

    class_names: the classes, in place of their number.
    """
    if not all(isinstance(name, str) and name for name in class_names):
        raise ConfigError(f"data.args.class_names are texts, not {class_names}.")
    names = tuple(class_names) or tuple(f"class{i}" for i in range(classes))
    count = train if part == "train" else eval
    keys = sorted(f"{part}/{name}/{i:05d}" for name in names for i in range(count))
    labels = np.array([names.index(key.split("/")[1]) for key in keys], np.int32)

    def read(row: int) -> np.ndarray:
        return synthetic.stripes(keys[row], int(labels[row]), len(names), size, size)

    return Source(tuple(keys), labels, names, read)
