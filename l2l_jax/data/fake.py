"""Made-up images of any size: the stand-in of every config's :smoke form, and of tests.

Each class has a colour and a direction of stripes; each image adds its own phase and noise. An
image is a pure function of its key.
"""

import numpy as np

from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Source


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
        rng = np.random.default_rng(seed_of(0, keys[at]))
        angle = np.pi * labels[at] / len(names)
        y, x = np.mgrid[:size, :size] / size
        along = np.cos(angle) * x + np.sin(angle) * y
        wave = 0.5 + 0.4 * np.sin(2 * np.pi * (4 * along + rng.random()))
        colour = np.random.default_rng(int(labels[at])).uniform(0.3, 1.0, 3)
        image = wave[..., None] * colour + rng.normal(0, 0.03, (size, size, 3))
        return (np.clip(image, 0, 1) * 255).astype(np.uint8)

    return Source(tuple(keys), labels, names, read)
