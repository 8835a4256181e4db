"""Example evaluator: the mean brightness of the shown completions."""

from collections.abc import Iterator

import numpy as np

from l2l_jax.types import Cell, Evaluation, Figure

FIGURES = (Figure("brightness", "mean brightness", "grey levels", digits=1),)


def evaluate(evaluation: Evaluation) -> Iterator[tuple[Cell, str, float]]:
    """brightness, in [0, 255], for every variant, side and task."""
    for task in evaluation.tasks:
        for side in evaluation.sides:
            for variant in evaluation.variants:
                images = evaluation.completions(variant, side, task).completed
                yield (variant, side, task), "brightness", float(np.mean(images))
