"""What several evaluators share: loops over completions, seeds, arrays that must be there."""

from collections.abc import Iterator

import numpy as np

from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Cell, Completions, Evaluation


def each_cell(evaluation: Evaluation, network: str = "main") -> Iterator[tuple[Cell, Completions]]:
    """Yields ((variant, side, task), completions): for each task, for each side, every variant.

    network: the feature network, a key of config.networks, whose features and logits are returned.
    """
    for task in evaluation.tasks:
        for side in evaluation.sides:
            for variant in evaluation.variants:
                yield (variant, side, task), evaluation.completions(variant, side, task, network)


def interval_seed(evaluation: Evaluation, cell: Cell) -> int:
    """The seed of the interval of a figure: the same for all variants of a side and task."""
    _, side, task = cell
    return seed_of(evaluation.seed, "interval", side, task)


def required(array: np.ndarray | None) -> np.ndarray:
    """The array. ValueError if it is None, because its feature network is missing."""
    if array is None:
        raise ValueError("the feature network of this evaluator is missing")
    return array
