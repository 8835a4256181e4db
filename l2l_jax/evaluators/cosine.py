"""Mean cosine between the features of a completion and those of the complete image.

With feature_networks/clip.py as the network this is paper A's CLIP similarity.
"""

import numpy as np
from jaxtyping import Float

from l2l_jax.lib import bootstrap
from l2l_jax.lib.evaluation import each_cell, interval_seed, required
from l2l_jax.types import Evaluation, Figure, FigureValues

FIGURES = (Figure("cosine", "cosine", good="up", digits=3),)


def evaluate(evaluation: Evaluation, *, network: str = "main") -> FigureValues:
    """Yields cosine, in [-1, 1], for every variant, side and task."""
    for cell, completions in each_cell(evaluation, network):
        features, real = required(completions.features), required(completions.real_features)
        seed = interval_seed(evaluation, cell)
        yield cell, "cosine", bootstrap.mean(cosines(features, real), seed)


def cosines(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    """The cosine between a[i] and b[i] of each row; that of a zero row is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.sum(a * b, axis=1) / np.maximum(norms, 1e-12)
