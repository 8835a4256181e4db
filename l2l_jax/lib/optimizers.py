"""Directions of optimizers other than AdamW: what optimizer.name chooses.

Each function takes the keys of optimizer.args as keyword-only arguments and returns the direction
of a step, before the learning rate and weight decay, which lib/optim.py adds in the same way for
all. The implementations and the defaults are those of optax and optax.contrib, which name the
papers. Optimizers that need the value of the loss (L-BFGS, Polyak step sizes, MoMo), a second
gradient at another point (SAM), or parameters that are not those of the step (schedule-free) are
not offered: a solver gives them no single loss.

Sophia (Liu et al., ICLR 2024) divides by an estimate of the diagonal of the Hessian. SOUL (Jia et
al., EMNLP 2024) observes that such a second-order optimizer forgets better than a first-order one.
A solver gives a direction g(theta) and no loss, so the estimate here is that of the diagonal of the
Jacobian of g (Hutchinson: z * (J z), z of random signs). With the solver `weighted`, g is the
gradient of one loss, and J its Hessian.
"""

import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from l2l_jax.lib import second_order
from l2l_jax.types import Bounds, Params

Direction = Callable[..., optax.GradientTransformation]

DECAY = Bounds(0, 1, open_high=True)
SMALL = Bounds(0, 1, open_low=True)  # what is added to a denominator
BOUNDS: Mapping[str, Bounds] = dict(
    **dict.fromkeys(("momentum", "b1", "b2", "b3", "decay"), DECAY),
    eps=SMALL,
    alpha=Bounds(0),
    gamma=Bounds(0, open_low=True),
    threshold=Bounds(0, open_low=True),
    interval=Bounds(1, 10**6),
    factor_from=Bounds(1, 10**9),
    start=Bounds(0),
)


def sgd(*, momentum: int | float = 0.0, nesterov: bool = False) -> optax.GradientTransformation:
    """The gradient itself; with momentum, the sum of all gradients, momentum^k for one k ago."""
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


def sophia(
    *,
    b1: int | float = 0.965,
    b2: int | float = 0.99,
    eps: int | float = 1e-8,
    gamma: int | float = 0.01,
    threshold: int | float = 1.0,
    interval: int = 10,
) -> optax.GradientTransformation:
    """clip(m / max(gamma h, eps), threshold): m first moment, h diagonal every `interval` steps.

    A step with a new h computes the direction once more, and its derivative along z: about three
    times the time of a step, and the memory of both.
    """
    return optax.contrib.sophia(
        -1.0,  # optax gives the step, which is minus the direction times a learning rate
        *(b1, b2, eps),
        weight_decay=0.0,
        gamma=gamma,
        clip_threshold=threshold,
        update_interval=interval,
        hessian_diagonal_fn=hutchinson(),
    )


def hutchinson() -> optax.GradientTransformationExtraArgs:
    """Estimates the diagonal of the Jacobian of `direction`, an extra argument of `update`.

    direction(params) returns a tree like params. The state is a key; it is saved with checkpoints.
    """

    def init(params: Params) -> jax.Array:
        del params
        return jax.random.PRNGKey(0)

    def update(
        updates: Params,
        state: jax.Array,
        params: Any = None,
        *,
        direction: Callable[[Params], Params],
        **others: Any,
    ) -> tuple[Params, jax.Array]:
        del updates, others
        key, own = jax.random.split(state)
        signs = optax.tree.random_like(own, params, jax.random.rademacher, dtype=jnp.float32)
        signs = jax.tree.map(lambda sign, x: sign.astype(x.dtype), signs, params)
        with second_order.differentiable():
            product = jax.jvp(direction, (params,), (signs,))[1]
        return jax.tree.map(jnp.multiply, signs, product), key

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore


def lion(*, b1: int | float = 0.9, b2: int | float = 0.99) -> optax.GradientTransformation:
    """The sign of a moving average of the gradient."""
    return optax.scale_by_lion(b1, b2)


def adafactor(
    *, decay: int | float = 0.8, threshold: int | float = 1.0, factor_from: int = 128
) -> optax.GradientTransformation:
    """Divides by second moments that are kept as rows and columns, which takes little memory.

    factor_from: arrays with two axes of this length are factored. The root mean square of a step is
    at most `threshold`. Steps are not scaled by the size of parameters.
    """
    moments = optax.scale_by_factored_rms(decay_rate=decay, min_dim_size_to_factor=factor_from)
    return optax.chain(moments, optax.clip_by_block_rms(threshold))


def rmsprop(*, decay: int | float = 0.9, eps: int | float = 1e-8) -> optax.GradientTransformation:
    """Divides by the root of the second moment."""
    return optax.scale_by_rms(decay, eps)


def adagrad(*, start: int | float = 0.1, eps: int | float = 1e-7) -> optax.GradientTransformation:
    """Divides by the root of the sum of all squares so far, which begins at `start`."""
    return optax.scale_by_rss(start, eps)


def adabelief(
    *, b1: int | float = 0.9, b2: int | float = 0.999, eps: int | float = 1e-16
) -> optax.GradientTransformation:
    """Divides by the root of the variance of the gradient around its first moment."""
    return optax.scale_by_belief(b1, b2, eps)


def radam(
    *, b1: int | float = 0.9, b2: int | float = 0.999, eps: int | float = 1e-8
) -> optax.GradientTransformation:
    """Adam that corrects the large variance of its first steps."""
    return optax.scale_by_radam(b1, b2, eps)


def nadam(
    *, b1: int | float = 0.9, b2: int | float = 0.999, eps: int | float = 1e-8
) -> optax.GradientTransformation:
    """Adam with Nesterov momentum."""
    return optax.scale_by_adam(b1, b2, eps, nesterov=True)


def yogi(
    *, b1: int | float = 0.9, b2: int | float = 0.999, eps: int | float = 1e-3
) -> optax.GradientTransformation:
    """Adam whose second moment changes by bounded amounts."""
    return optax.scale_by_yogi(b1, b2, eps)


def novograd(
    *, b1: int | float = 0.9, b2: int | float = 0.25, eps: int | float = 1e-8
) -> optax.GradientTransformation:
    """Adam with one second moment for each array of parameters."""
    return optax.scale_by_novograd(b1, b2, eps)


def adopt(
    *, b1: int | float = 0.9, b2: int | float = 0.9999, eps: int | float = 1e-6
) -> optax.GradientTransformation:
    """Adam that divides by the second moment of the steps before."""
    return optax.contrib.scale_by_adopt(b1, b2, eps)


def ademamix(
    *,
    b1: int | float = 0.9,
    b2: int | float = 0.999,
    b3: int | float = 0.9999,
    alpha: int | float = 6.0,
    eps: int | float = 1e-8,
) -> optax.GradientTransformation:
    """Adam with a second, slower first moment (b3), which counts `alpha` times."""
    return optax.contrib.scale_by_ademamix(b1, b2, b3, alpha, eps)


_ALL = (
    *(sgd, sophia, lion, adafactor, rmsprop, adagrad, adabelief, radam, nadam),
    *(yogi, novograd, adopt, ademamix),
)
DIRECTIONS: Mapping[str, Direction] = types.MappingProxyType({each.__name__: each for each in _ALL})
