"""Kernel Inception Distance (Binkowski et al. 2018): unbiased where FID is not.

    MMD^2 with k(x, y) = (x.y / D + 1)^3, unbiased estimate, mean over random subsets

The FID of a few thousand images is too large, by an amount that depends on their number and
variety. The mean of this estimate does not depend on the number of images. It may be negative.

The estimate is unbiased for independent samples. A completion and its own image are not: they share
the visible pixels. Pairs of the two are therefore left out of the mean of k(x, y), as the pairs of
an image with itself are left out of the other two means. Otherwise perfect completions of 100
images would have a KID clearly below 0.
"""

import logging

import numpy as np
from jaxtyping import Float

from l2l_jax.lib import bootstrap
from l2l_jax.lib.evaluation import each_cell, interval_seed, required
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Bounds, Evaluation, Figure, FigureValues

log = logging.getLogger(__name__)

FIGURES = (Figure("kid", "KID", good="down", digits=4),)
BOUNDS = {"subsets": Bounds(1, 10**6), "size": Bounds(2, 10**6)}
SUBSETS_SHARE = 20  # the interval is made with subsets / 20 random subsets in each turn


def evaluate(
    evaluation: Evaluation, *, network: str = "main", subsets: int = 100, size: int = 1000
) -> FigureValues:
    """Yields kid for every variant, side and task; a side with fewer than two images has none.

    subsets: how many random subsets; size: the largest number of images in one.
    """
    for cell, completions in each_cell(evaluation, network):
        features, real = required(completions.features), required(completions.real_features)
        if len(features) < 2:
            log.warning("kid needs two images; the %s side has fewer", cell[1])
            continue
        rng = np.random.default_rng(seed_of(evaluation.seed, "kid", cell[1]))
        value = distance(real, features, subsets, size, rng, paired=True)

        seed, fewer = interval_seed(evaluation, cell), max(1, subsets // SUBSETS_SHARE)

        def without(
            rows: bootstrap.Rows,
            a: np.ndarray = real,
            b: np.ndarray = features,
            seed: int = seed,
            fewer: int = fewer,
        ) -> float:
            rng = np.random.default_rng(seed)
            return distance(a[rows], b[rows], fewer, size, rng, paired=True)

        yield cell, "kid", bootstrap.left_out(value, without, len(features), seed)


def distance(
    a: Float[np.ndarray, "N D"],
    b: Float[np.ndarray, "M D"],
    subsets: int,
    size: int,
    rng: np.random.Generator | np.random.RandomState,
    paired: bool = False,
) -> float:
    """Mean of the estimate over `subsets` draws of at most `size` rows of both a and b.

    paired: row i of a and row i of b belong to the same image, and their product is left out.
    ValueError if paired sets have different lengths.
    """
    if paired and len(a) != len(b):
        raise ValueError(f"Sets of {len(a)} and {len(b)} rows are not pairs.")
    size, width = min(len(a), len(b), size), a.shape[1]
    subsets = 1 if size == len(a) == len(b) else subsets  # every subset would be the whole set
    total = 0.0
    for _ in range(subsets):
        rows = rng.choice(len(b), size, replace=False)
        columns = rng.choice(len(a), size, replace=False)
        y, x = np.asarray(b[rows], np.float64), np.asarray(a[columns], np.float64)
        within = (x @ x.T / width + 1) ** 3 + (y @ y.T / width + 1) ** 3
        across = (x @ y.T / width + 1) ** 3
        pairs = (within.sum() - np.trace(within)) / (size * (size - 1))
        counted = columns[:, None] != rows if paired else np.ones(across.shape, bool)
        total += pairs - 2 * across.mean(where=counted)
    return total / subsets
