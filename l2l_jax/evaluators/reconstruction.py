"""How close completions are to the complete images: PSNR and L1 on hidden pixels, and grids.

images/<task>_<side>.png has one column for each example. Its rows are the image, the image with the
hidden part covered, and the completion of each variant: original, unlearned, retrained.
"""

import numpy as np
from jaxtyping import Bool, UInt8

from l2l_jax.data import images
from l2l_jax.lib import bootstrap, pixels
from l2l_jax.lib.evaluation import interval_seed
from l2l_jax.types import Completions, Evaluation, Figure, FigureValues

FIGURES = (
    Figure("psnr", "PSNR, hidden pixels", "dB", good="up", digits=2),
    Figure("l1", "L1, hidden pixels", good="down"),
)


def evaluate(evaluation: Evaluation, *, grids: bool = True) -> FigureValues:
    """Yields psnr, in dB: mean over images of -10 log10(MSE on hidden pixels), peak value 1.

    Yields l1, the mean absolute error on hidden pixels, in [0, 1]. grids: whether to keep pictures
    of the sides that may be shown.
    """
    for task in evaluation.tasks:
        for side in evaluation.sides:
            by_variant = {v: evaluation.completions(v, side, task) for v in evaluation.variants}
            for variant, completions in by_variant.items():
                cell = (variant, side, task)
                seed = interval_seed(evaluation, cell)
                yield cell, "psnr", bootstrap.mean(pixels.psnr(completions.mse), seed)
                yield cell, "l1", bootstrap.mean(completions.l1, seed)
            if grids and side in evaluation.shown:
                evaluation.keep_picture(f"{task}_{side}", grid(list(by_variant.values())))


def grid(variants: list[Completions]) -> UInt8[np.ndarray, "H W 3"]:
    """The images, the images with hidden pixels covered, and a row of completions per variant."""
    first = variants[0]
    rows = [first.images, cover(first.images, first.hidden), *[v.completed for v in variants]]
    return images.sheet(rows)


def cover(
    pictures: UInt8[np.ndarray, "K H W 3"], hidden: Bool[np.ndarray, "K H W"]
) -> UInt8[np.ndarray, "K H W 3"]:
    """Draws diagonal blue-grey stripes over hidden pixels, which cannot be mistaken for content."""
    side = pictures.shape[1]
    y, x = np.mgrid[:side, :side]
    width = max(1, side // 16)
    stripes = np.where((((x + y) // width) % 2)[..., None], (148, 163, 184), (203, 213, 225))
    return np.where(hidden[..., None], stripes, pictures).astype(np.uint8)
