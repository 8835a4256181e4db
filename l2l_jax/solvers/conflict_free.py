"""Look one forget step ahead, so that both gradients come to agree (Patel and Qiu, LUR, 2025).

    minimise  L_R(theta') + alpha L_F(theta)       theta' = theta - rate grad L_F(theta)
            = L_R + alpha L_F - rate <grad L_R, grad L_F> + O(rate^2)

    g = (I - rate H_F) grad L_R(theta') + alpha grad L_F(theta)

The third term rewards gradients that point in the same direction: a step that forgets then does not
undo what is kept. Nothing computes it: it is what the look-ahead does. H_F is the Hessian of L_F.

Source: "Learning to Unlearn while Retaining", arXiv 2503.06339. Its abstract says that conflicts
are avoided by an implicit gradient regularisation that emerges from the framework; its formulas
could not be read. This look-ahead is the simplest scheme that has such a regularisation. That it is
the paper's is not verified. rate = 0.01 is our choice, and untuned; alpha = 0.25 is that of L2L.
exact=False leaves out H_F (a first-order look-ahead): half of the gradient of the third term
remains.

Cost: two forward and two backward passes at theta and at theta', and with exact=True the derivative
of one backward pass. Memory: a copy of the parameters and two gradients; with exact=True also the
intermediate values of a backward pass.
"""

import jax
from jaxtyping import Array, Int

from l2l_jax.lib import second_order
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.trees import dot, weighted_sum
from l2l_jax.types import Bounds, Metrics, Objectives, Params

BOUNDS = {"alpha": Bounds(0), "rate": Bounds(0)}


def update(
    objectives: Objectives,
    student: Params,
    step: Int[Array, ""] | int,
    *,
    alpha: int | float = 0.25,
    rate: int | float = 0.01,
    exact: bool = True,
) -> tuple[Params, Metrics]:
    """Returns (g, metrics). Metrics are those at theta.

    They include "loss" (retain at theta' + alpha * forget), "ahead" (retain at theta') and
    "agreement" (<grad L_R(theta'), grad L_F(theta)>).
    """
    del step
    if not (alpha >= 0 and rate >= 0):
        raise ConfigError(
            f"conflict_free: alpha={alpha} and rate={rate} would undo forgetting; they must be 0 "
            "or more."
        )

    def forgetting(params: Params) -> tuple[Params, Metrics]:
        (gradient,), metrics = objectives.gradients(params, (0.0, 1.0))
        return gradient, metrics

    if exact:
        with second_order.differentiable():
            forget, pullback, metrics = jax.vjp(forgetting, student, has_aux=True)
    else:
        (forget, metrics), pullback = forgetting(student), None
    ahead = weighted_sum(1.0, student, -rate, forget)
    (retain,), later = objectives.gradients(ahead, (1.0, 0.0))
    gradient = weighted_sum(1.0, retain, alpha, forget)
    if pullback:
        gradient = weighted_sum(1.0, gradient, -rate, pullback(retain)[0])
    loss = later["retain"] + alpha * metrics["forget"]
    added = {"loss": loss, "ahead": later["retain"], "agreement": dot(retain, forget)}
    return gradient, metrics | added
