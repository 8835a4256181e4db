"""t-SNE of features: where the completions of all variants and both sides lie (paper A, Fig. 4).

Writes tsne.json, which the report draws: coordinates of the completions of each variant and side
under the first task, from one layout. Perplexity 20 as in the released code.
"""

import numpy as np

from l2l_jax.lib.evaluation import required
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Bounds, Evaluation, Figure, FigureValues

FIGURES: tuple[Figure, ...] = ()
BOUNDS = {"points": Bounds(2, 10**6), "perplexity": Bounds(1, 1000)}
MIN_POINTS = 4  # of all groups together


def evaluate(
    evaluation: Evaluation,
    *,
    points: int = 100,
    perplexity: int | float = 20.0,
    network: str = "main",
) -> FigureValues:
    """Keeps the record "tsne", and yields no figure: distances in t-SNE are not measurements.

    points: the largest number of images of a variant and side.
    """
    from sklearn.manifold import TSNE  # imported here because importing takes a second

    task, groups = evaluation.tasks[0], []
    for side in evaluation.sides:
        for variant in evaluation.variants:
            features = required(evaluation.completions(variant, side, task, network).features)
            rng = np.random.default_rng(seed_of(evaluation.seed, "tsne", side))
            rows = np.sort(rng.permutation(len(features))[:points])
            groups.append((variant, side, features[rows]))
    everything = np.concatenate([features for _, _, features in groups])
    if len(everything) >= MIN_POINTS:
        perplexity = min(perplexity, (len(everything) - 1) / 3)
        layout = TSNE(perplexity=perplexity, init="pca", random_state=evaluation.seed)
        positions = layout.fit_transform(everything.astype(np.float64))
        ends = np.cumsum([len(features) for _, _, features in groups])
        record = [
            {"variant": variant, "side": side, "points": np.round(part, 3).tolist()}
            for (variant, side, _), part in zip(groups, np.split(positions, ends[:-1]), strict=True)
        ]
        evaluation.keep_record("tsne", {"task": task, "perplexity": perplexity, "groups": record})
    yield from ()
