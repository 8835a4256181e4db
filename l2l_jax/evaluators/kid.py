"""Kernel Inception Distance (Binkowski et al. 2018): unbiased where FID is not.

    MMD^2 with k(x, y) = (x.y / D + 1)^3, unbiased estimate, mean over random subsets

A FID of a few thousand images is too large by an amount that depends on their number and their
variety; this estimate's mean does not depend on the number. It may be negative.
"""

import logging
from collections.abc import Iterator

import numpy as np

from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Evaluation, Figure

log = logging.getLogger(__name__)

FIGURES = (Figure("kid", "KID", good="down", digits=4),)
MINIMUMS = {"subsets": 1, "size": 2}


def evaluate(
    evaluation: Evaluation, *, network: str = "main", subsets: int = 100, size: int = 1000
) -> Iterator[tuple[tuple[str, str, str], str, float]]:
    """kid for every variant, side and task; subsets of at most `size` completions and images.

    Sides with fewer than two images have none.
    """
    for task in evaluation.tasks:
        for side in evaluation.sides:
            for variant in evaluation.variants:
                made = evaluation.completions(variant, side, task, network)
                if len(made.features) < 2:
                    log.warning("kid needs two images; the %s side has fewer", side)
                    continue
                rng = np.random.default_rng(seed_of(evaluation.seed, "kid", side))
                found = distance(made.real_features, made.features, subsets, size, rng)
                yield (variant, side, task), "kid", found


def distance(
    a: np.ndarray,
    b: np.ndarray,
    subsets: int,
    size: int,
    rng: np.random.Generator | np.random.RandomState,
) -> float:
    """Mean over `subsets` draws of at most `size` rows of each of a [N, D] and b [M, D]."""
    size, width = min(len(a), len(b), size), a.shape[1]
    subsets = 1 if size == len(a) == len(b) else subsets  # they would all be the whole sets
    total = 0.0
    for _ in range(subsets):
        y = np.asarray(b[rng.choice(len(b), size, replace=False)], np.float64)
        x = np.asarray(a[rng.choice(len(a), size, replace=False)], np.float64)
        within = (x @ x.T / width + 1) ** 3 + (y @ y.T / width + 1) ** 3
        across = (x @ y.T / width + 1) ** 3
        pairs = (within.sum() - np.trace(within)) / (size * (size - 1))
        total += pairs - 2 * across.mean()
    return total / subsets
