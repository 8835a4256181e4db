"""Inception Score of the completions (Salimans et al. 2016): exp of the mean KL(p(y|x) || p(y)).

p(y|x) is the softmax of a network's logits. The images are shuffled (seeded) before they are
divided into splits. With shuffle=False they are not, as in the code released with paper A: its
images are ordered by class, which lowers the entropy of p(y) within a split.

The original code of the Inception Score resizes with TensorFlow and omits the bias of the logits,
so the values of feature_networks/inception.py are close to its values, but not equal.
"""

import logging

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from l2l_jax.lib import bootstrap
from l2l_jax.lib.evaluation import each_cell, interval_seed, required
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Bounds, Evaluation, Figure, FigureValues

log = logging.getLogger(__name__)

FIGURES = (
    Figure("is", "Inception Score", good="up", digits=2),
    Figure("is_std", "Inception Score, deviation over splits", digits=2, spread_of="is"),
)
NEEDS_LOGITS = True
BOUNDS = {"splits": Bounds(1, 10**6)}
MIN_IMAGES = 10  # in a split
RESAMPLES = 200  # of the interval


def evaluate(
    evaluation: Evaluation, *, splits: int = 10, network: str = "main", shuffle: bool = True
) -> FigureValues:
    """Yields is and is_std: the mean and the population standard deviation over the splits.

    There are fewer splits if one would hold less than MIN_IMAGES images. A side with fewer than
    MIN_IMAGES images has no score.
    """
    for cell, completions in each_cell(evaluation, network):
        logits = required(completions.logits)
        if len(logits) < MIN_IMAGES:
            log.warning("inception_score needs %d images, not %d", MIN_IMAGES, len(logits))
            continue
        rng = np.random.default_rng(seed_of(evaluation.seed, "inception_score", cell[1]))
        rows = rng.permutation(logits) if shuffle else logits
        parts = min(splits, len(logits) // MIN_IMAGES)
        mean, std = inception_score(rows, parts)

        def again(drawn: bootstrap.Rows, logits: np.ndarray = logits, parts: int = parts) -> float:
            return inception_score(logits[drawn], parts)[0]

        seed = interval_seed(evaluation, cell)
        yield cell, "is", bootstrap.resampled(mean, again, len(logits), seed, RESAMPLES)
        yield cell, "is_std", std


def inception_score(logits: Float[np.ndarray, "N C"], splits: int) -> tuple[float, float]:
    """(mean, population std) over `splits` equal parts of the rows; the remainder is dropped."""
    logits = np.asarray(logits, np.float64)
    log_p = logits - logsumexp(logits, axis=1, keepdims=True)
    size = len(log_p) // splits
    scores = []
    for part in log_p[: size * splits].reshape(splits, size, -1):
        marginal = logsumexp(part, axis=0) - np.log(size)
        scores.append(np.exp(np.mean(np.sum(np.exp(part) * (part - marginal), axis=1))))
    return float(np.mean(scores)), float(np.std(scores))
