"""Is the unlearned model like one that never saw the forget images?

The question of Varshney & Torra (2025): a model that was retrained still completes unseen images
somehow, so the aim is its completions, not noise. Answered only where config.reference names a
retrained model.
"""

from collections.abc import Iterator

import numpy as np

from l2l_jax.types import Evaluation, Figure

FIGURES = (
    Figure(
        "retrain_distance",
        "distance to retrained",
        good="down",
        good_on_forget="same",
        note="Distance to retrained is the root mean square difference, on hidden pixels, between "
        "the completions of a model and those of the retrained reference: smaller is closer, on "
        "both sides.",
    ),
)


def evaluate(evaluation: Evaluation) -> Iterator[tuple[tuple[str, str, str], str, float]]:
    """Yields "retrain_distance": the distance to what the retrained model makes of the same image.

    Root mean square difference on the hidden pixels of an image, both in [0, 1], mean over the
    images of a side. For every variant but the retrained model itself.
    """
    for task in evaluation.tasks:
        for variant in evaluation.variants:
            for side in evaluation.sides:
                apart = evaluation.completions(variant, side, task).retrain_distance
                if apart is not None:
                    yield (variant, side, task), "retrain_distance", float(np.mean(apart))
