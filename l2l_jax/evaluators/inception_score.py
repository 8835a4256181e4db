"""Inception Score of the completions (Salimans et al. 2016): exp of the mean KL(p(y|x) || p(y)).

p(y|x) comes from the logits of a network. The images are shuffled (seeded) before they are cut into
splits, unless shuffle=False: the released code cut lists ordered by class, which lowers p(y)'s
entropy.

The score of the original code came from TensorFlow's own resizing and from logits without their
bias; that of feature_networks/inception.py is near to it, and not it to the digit.
"""

import logging
from collections.abc import Iterator

import numpy as np
from scipy.special import logsumexp

from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Evaluation, Figure

log = logging.getLogger(__name__)

FIGURES = (
    Figure("is", "Inception Score", good="up", digits=2),
    Figure("is_std", "Inception Score, deviation over splits", digits=2, spread_of="is"),
)
NEEDS_LOGITS = True
MINIMUMS = {"splits": 1}
SMALLEST = 10  # images in a split


def evaluate(
    evaluation: Evaluation, *, splits: int = 10, network: str = "main", shuffle: bool = True
) -> Iterator[tuple[tuple[str, str, str], str, float]]:
    """is and is_std, the mean and the population standard deviation over the splits.

    Fewer splits if one would hold less than ten images; fewer than ten images have no score.
    """
    for task in evaluation.tasks:
        for side in evaluation.sides:
            for variant in evaluation.variants:
                logits = evaluation.completions(variant, side, task, network).logits
                if len(logits) < SMALLEST:
                    log.warning("inception_score needs %d images, not %d", SMALLEST, len(logits))
                    continue
                rng = np.random.default_rng(seed_of(evaluation.seed, "inception_score", side))
                rows = rng.permutation(logits) if shuffle else logits
                mean, std = inception_score(rows, min(splits, len(logits) // SMALLEST))
                yield (variant, side, task), "is", mean
                yield (variant, side, task), "is_std", std


def inception_score(logits: np.ndarray, splits: int) -> tuple[float, float]:
    """(mean, population std) over `splits` equal parts of logits [N, C]; without the remainder."""
    logits = np.asarray(logits, np.float64)
    log_p = logits - logsumexp(logits, axis=1, keepdims=True)
    size = len(log_p) // splits
    scores = []
    for part in log_p[: size * splits].reshape(splits, size, -1):
        marginal = logsumexp(part, axis=0) - np.log(size)
        scores.append(np.exp(np.mean(np.sum(np.exp(part) * (part - marginal), axis=1))))
    return float(np.mean(scores)), float(np.std(scores))
