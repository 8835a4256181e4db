"""Does the unlearned model complete images like a model that was never trained on forget images?

The question of Varshney & Torra (2025): a retrained model still completes images that it has not
seen somehow, so the aim is to complete them in the same way, not to return noise. It is answered
only if config.reference names retrained models.
"""

import itertools

from l2l_jax.lib import bootstrap
from l2l_jax.lib.evaluation import interval_seed
from l2l_jax.types import Evaluation, Figure, FigureValues

FIGURES = (
    Figure(
        "retrain_distance",
        "distance to retrained",
        good="down",
        good_on_forget="same",
        note="Distance to retrained is the root mean square difference, on hidden pixels, between "
        "the completions of a model and those of the retrained reference: smaller is closer, on "
        "both sides. With several references it is the mean over them; that of a reference is its "
        "distance to the others.",
    ),
)


def evaluate(evaluation: Evaluation) -> FigureValues:
    """Yields retrain_distance for every variant but the only retrained model itself.

    Root mean square difference, on the hidden pixels of an image in [0, 1], to the retrained
    model's completion of the same image; mean over the images of a side. With several retrained
    models it is the mean over these; for one of them, over the others. The latter is the floor: the
    distance that remains when nothing but the seed of retraining differs.
    """
    variants, sides = evaluation.variants, evaluation.sides
    for task, variant, side in itertools.product(evaluation.tasks, variants, sides):
        distances = evaluation.completions(variant, side, task).retrain_distance
        if distances is not None:
            cell = (variant, side, task)
            value = bootstrap.mean(distances, interval_seed(evaluation, cell))
            yield cell, "retrain_distance", value
