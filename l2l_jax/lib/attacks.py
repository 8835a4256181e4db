"""What attacks by training share: sets of images, and the curve of completions."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from l2l_jax.lib import per_image
from l2l_jax.types import ImageSet, Subject


def curve(
    subject: Subject,
    images: ImageSet,
    held_out: ImageSet,
    steps: Sequence[int],
    lr: float,
    **how: Any,
) -> Iterator[tuple[int, np.ndarray]]:
    """(steps done, PSNR [N] of the held-out images) while the model is trained on the images.

    how: further arguments of Subject.attack.
    """
    for step, params in subject.attack(images, steps, lr=lr, **how):
        yield step, subject.measure(per_image.psnr, held_out, params=params)


def few(images: ImageSet, each: int) -> ImageSet:
    """The first `each` images of every class, or all that there are."""
    rows = [
        row
        for name in dict.fromkeys(images.classes)
        for row in [at for at, of in enumerate(images.classes) if of == name][:each]
    ]
    return images.take(rows)


def joined(name: str, *parts: ImageSet) -> ImageSet:
    """One set of the images of several, in their order."""
    images = np.concatenate([part.images for part in parts])
    return ImageSet(name, images, tuple(label for part in parts for label in part.classes))
