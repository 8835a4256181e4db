"""Mean cosine between the embedding of a completion and that of the image it was made from.

With feature_networks/clip.py as the network this is paper A's CLIP similarity.
"""

from collections.abc import Iterator

import numpy as np

from l2l_jax.types import Evaluation, Figure

FIGURES = (Figure("cosine", "cosine", good="up", digits=3),)


def evaluate(
    evaluation: Evaluation, *, network: str = "main"
) -> Iterator[tuple[tuple[str, str, str], str, float]]:
    """cosine, in [-1, 1], for every variant, side and task."""
    for task in evaluation.tasks:
        for side in evaluation.sides:
            for variant in evaluation.variants:
                made = evaluation.completions(variant, side, task, network)
                yield (variant, side, task), "cosine", cosine(made.features, made.real_features)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over rows of the cosine between a[i] and b[i]; a zero row counts as 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean(np.sum(a * b, axis=1) / np.maximum(norms, 1e-12)))
