"""How close a completion is to the truth: PSNR and L1 on the hidden pixels, and picture grids.

images/<task>_<side>.png has one column for each example and these rows: the image, what the model
sees of it, and the completion of each variant: original, unlearned, retrained.
"""

from collections.abc import Iterator

import numpy as np

from l2l_jax.data import images
from l2l_jax.types import Completions, Evaluation, Figure

FIGURES = (
    Figure("psnr", "PSNR, hidden pixels", "dB", good="up", digits=2),
    Figure("l1", "L1, hidden pixels", good="down"),
)


def evaluate(
    evaluation: Evaluation, *, grids: bool = True
) -> Iterator[tuple[tuple[str, str, str], str, float]]:
    """psnr: mean over images of -10 log10(MSE on hidden pixels), dB, peak 1. l1: in [0, 1]."""
    for task in evaluation.tasks:
        for side in evaluation.sides:
            found = {v: evaluation.completions(v, side, task) for v in evaluation.variants}
            for variant, made in found.items():
                cell = (variant, side, task)
                yield cell, "psnr", float(np.mean(-10 * np.log10(np.maximum(made.mse, 1e-10))))
                yield cell, "l1", float(np.mean(made.l1))
            if grids:
                evaluation.keep_picture(f"{task}_{side}", grid(list(found.values())))


def grid(variants: list[Completions]) -> np.ndarray:
    """uint8 [rows, columns, 3]: input, hidden, then each variant's completions."""
    given = variants[0]
    rows = [given.images, cover(given.images, given.hidden), *[v.completed for v in variants]]
    return images.sheet(rows)


def cover(pictures: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Diagonal blue-grey stripes over the hidden pixels, so that nobody takes them for content."""
    side = pictures.shape[1]
    y, x = np.mgrid[:side, :side]
    width = max(1, side // 16)
    stripes = np.where((((x + y) // width) % 2)[..., None], (148, 163, 184), (203, 213, 225))
    return np.where(hidden[..., None], stripes, pictures).astype(np.uint8)
