"""One backward pass: minimise retain + alpha * forget (Li et al., ICLR 2024, Eq. 3 bounded).

alpha = 0.25 is that of the released runs of L2L.
"""

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Array, Metrics, Objectives, Params


def update(
    objectives: Objectives, student: Params, step: Array, *, alpha: float = 0.25
) -> tuple[Params, Metrics]:
    """The gradient of retain + alpha * forget, and metrics with that loss."""
    del step
    if not alpha >= 0:
        raise ConfigError(f"weighted: alpha={alpha} would undo forgetting; it is 0 or more.")
    (gradient,), metrics = objectives.gradients(student, (1.0, alpha))
    loss = metrics["retain"] + alpha * metrics["forget"]
    return gradient, metrics | {"loss": loss}
