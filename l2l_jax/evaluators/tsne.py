"""t-SNE of embeddings: where the completions of both models and both sides lie (paper A, Fig. 4).

Writes tsne.json, which the report draws: coordinates of the completions of each variant and side
under the first task, embedded together. Perplexity 20 as in the released code.
"""

from collections.abc import Iterator

import numpy as np

from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Evaluation, Figure

FIGURES: tuple[Figure, ...] = ()
MINIMUMS = {"points": 2, "perplexity": 1}


def evaluate(
    evaluation: Evaluation,
    *,
    points: int = 100,
    perplexity: float = 20.0,
    network: str = "main",
) -> Iterator[tuple[tuple[str, str, str], str, float]]:
    """Yields no figure: distances in a t-SNE picture are not measurements."""
    from sklearn.manifold import TSNE  # a second to import, needed once

    task, groups = evaluation.tasks[0], []
    for side in evaluation.sides:
        for variant in evaluation.variants:
            features = evaluation.completions(variant, side, task, network).features
            rng = np.random.default_rng(seed_of(evaluation.seed, "tsne", side))
            rows = np.sort(rng.permutation(len(features))[:points])
            groups.append((variant, side, features[rows]))
    everything = np.concatenate([features for _, _, features in groups])
    if len(everything) > 3:
        perplexity = min(perplexity, (len(everything) - 1) / 3)
        layout = TSNE(perplexity=perplexity, init="pca", random_state=evaluation.seed)
        placed = layout.fit_transform(everything.astype(np.float64))
        ends = np.cumsum([len(features) for _, _, features in groups])
        record = [
            {"variant": variant, "side": side, "points": np.round(part, 3).tolist()}
            for (variant, side, _), part in zip(groups, np.split(placed, ends[:-1]), strict=True)
        ]
        evaluation.keep_record("tsne", {"task": task, "perplexity": perplexity, "groups": record})
    yield from ()
