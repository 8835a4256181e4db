"""One backward pass: minimise retain + alpha * forget (Li et al., ICLR 2024, Eq. 3 bounded).

alpha = 0.25 is that of the released runs of L2L.
"""

from jaxtyping import Array, Int

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Bounds, Metrics, Objectives, Params

BOUNDS = {"alpha": Bounds(0)}  # below 0 it would undo forgetting


def update(
    objectives: Objectives,
    student: Params,
    step: Int[Array, ""] | int,
    *,
    alpha: int | float = 0.25,
) -> tuple[Params, Metrics]:
    """Returns (gradient of retain + alpha * forget, metrics with that sum as "loss")."""
    del step
    if not alpha >= 0:
        raise ConfigError(f"weighted: alpha={alpha} would undo forgetting; it must be 0 or more.")
    (gradient,), metrics = objectives.gradients(student, (1.0, alpha))
    loss = metrics["retain"] + alpha * metrics["forget"]
    return gradient, metrics | {"loss": loss}
