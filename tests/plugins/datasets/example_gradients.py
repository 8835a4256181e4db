"""Example data set: colour gradients of two classes, made on the spot."""

import numpy as np

from l2l_jax.types import Source

EXAMPLE: dict = {}


def load(part: str, *, count: int = 16, size: int = 16) -> Source:
    """`count` images of each class; class 0 rises to the right, class 1 downwards."""
    keys = sorted(f"{part}/{label}/{i:03d}" for label in range(2) for i in range(count))
    labels = np.array([int(key.split("/")[1]) for key in keys], np.int32)

    def read(at: int) -> np.ndarray:
        rng = np.random.default_rng((part == "eval", at))
        ramp = np.linspace(0, 255, size)[:, None] * rng.uniform(0.3, 1.0, 3)
        image = np.broadcast_to(ramp[None], (size, size, 3))
        return (image.swapaxes(0, 1) if labels[at] else image).astype(np.uint8)

    return Source(keys, labels, ("right", "down"), read)
