"""Example solver: the plain sum of both gradients."""

from l2l_jax.types import Array, Metrics, Objectives, Params


def update(
    objectives: Objectives, student: Params, step: Array, *, weight: float = 1.0
) -> tuple[Params, Metrics]:
    """The gradient of weight * (retain + forget), and metrics with that loss."""
    del step
    (gradient,), metrics = objectives.gradients(student, (weight, weight))
    return gradient, metrics | {"loss": weight * (metrics["retain"] + metrics["forget"])}
