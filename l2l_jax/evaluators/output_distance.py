"""Does the unlearned model complete images like a model that was never trained on forget images?

The question of Varshney & Torra (2025): a retrained model still completes images that it has not
seen somehow, so the aim is to complete them in the same way, not to return noise. It is answered
only if config.reference names a retrained model.
"""

import itertools

import numpy as np

from l2l_jax.types import Evaluation, Figure, FigureValues

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


def evaluate(evaluation: Evaluation) -> FigureValues:
    """Yields retrain_distance for every variant but the retrained model itself.

    Root mean square difference, on the hidden pixels of an image in [0, 1], to the retrained
    model's completion of the same image; mean over the images of a side.
    """
    variants, sides = evaluation.variants, evaluation.sides
    for task, variant, side in itertools.product(evaluation.tasks, variants, sides):
        distances = evaluation.completions(variant, side, task).retrain_distance
        if distances is not None:
            yield (variant, side, task), "retrain_distance", float(np.mean(distances))
