"""Clipped noisy descent inside a ball: a certificate (Koloskova et al., ICML 2025).

    start:  theta <- c + min(1, radius / |theta - c|) (theta - c)
    step:   theta <- theta - rate (clip(g(theta)) + decay (theta - c)) + N(0, sigma^2 I)

c is the `center`: parameters that do not depend on the forget images, such as public weights or an
initialisation. g is the gradient of the retain objective on retain images. clip scales the whole
gradient, that is the mean over the batch and over its micro-batches, down to the norm `clip`. Any
training on retain images alone may follow. What comes out is then (epsilon, delta)-close to the
same procedure after a training that never saw the forget images, for every network and every loss:
two starts inside the ball are at most 2 radius apart, a step moves them apart by at most 2 rate
clip, and the noise hides the rest. lib/accountant.py has the bound and its sources.

`sigma` = 0 takes the smallest noise that gives `epsilon` and `delta`; another value is used as it
is, and the record states the epsilon that it gives. center = "" is an initialisation by the seed of
the run, which is where its own pretraining starts; otherwise it is a weights file, or bundled:NAME.

The update is that of the optimizer `sgd` without momentum, decay or schedule: an optimizer with a
memory, or decay towards 0 in place of c, is not covered. Noise is added to the parameters and not
multiplied by the rate. A moving average of noisy parameters is not covered either, and neither is
`stop=unseen`, which looks at forget images. The run refuses all of these (engine/certificate.py).

The price is high. For epsilon = 8 and delta = 1e-5 the noise of all steps together is at least 1.2
radius for each single parameter: a ball in which a large network keeps what it learned is out of
reach. It is for heads, for adapters, and for small steps away from public weights.

Source: arXiv 2506.06985, Algorithm with gradient clipping; the accountant is arXiv 2403.00278.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from l2l_jax.lib import accountant, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Bounds, CenteredObjectives, Metrics, Params, Rng

SMALLEST_NORM = 1e-30  # replaces smaller values in denominators
BOUNDS = {
    "epsilon": Bounds(0, 1e6, open_low=True),
    "delta": Bounds(0, 1, open_low=True, open_high=True),
    "radius": Bounds(0, 1e6),
    "clip": Bounds(0, 1e6, open_low=True),
    "decay": Bounds(0, 1e6),
    "sigma": Bounds(0, 1e6),
}
VARIANTS = (dict(decay=0.5, sigma=0.01),)


def begin(student: Params, middle: Params, *, radius: int | float = 0.01, **others: Any) -> Params:
    """The point of the ball around `middle`, c, that is nearest to the student's parameters."""
    del others
    away = trees.weighted_sum(1.0, student, -1.0, middle)
    norm = jnp.sqrt(trees.dot(away, away))
    share = jnp.minimum(1.0, radius / jnp.maximum(norm, SMALLEST_NORM))
    return trees.weighted_sum(1.0, middle, share, away)


def update(
    objectives: CenteredObjectives,
    student: Params,
    step: Int[Array, ""] | int,
    *,
    epsilon: int | float = 8.0,
    delta: int | float = 1e-5,
    radius: int | float = 0.01,
    clip: int | float = 1.0,
    decay: int | float = 0.0,
    sigma: int | float = 0.0,
    center: str = "",
) -> tuple[Params, Metrics]:
    """Returns (clipped gradient of retain + decay (student - center), metrics).

    Metrics include "loss" and "clipped", 1 if the gradient was longer than `clip`.
    """
    del step, epsilon, delta, radius, sigma, center
    (gradient,), metrics = objectives.gradients(student, (1.0, 0.0))
    norm = jnp.sqrt(trees.dot(gradient, gradient))
    share = jnp.minimum(1.0, clip / jnp.maximum(norm, SMALLEST_NORM))
    direction = jax.tree.map(lambda x: share * x, gradient)
    if decay:
        away = trees.weighted_sum(1.0, student, -1.0, objectives.center)
        direction = trees.weighted_sum(1.0, direction, decay, away)
    added = {"loss": metrics["retain"], "clipped": (norm > clip).astype(jnp.float32)}
    return direction, metrics | added


def after(student: Params, rng: Rng, *, sigma: int | float = 0.0, **others: Any) -> Params:
    """The parameters that a step made, with its noise: sigma is that of each parameter."""
    del others
    leaves, structure = jax.tree.flatten(student)
    keys = jax.random.split(rng, len(leaves))
    noisy = [
        x + sigma * jax.random.normal(key, x.shape, x.dtype)
        for x, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, noisy)


def settle(steps: int, rate: float, **args: Any) -> dict[str, Any]:
    """The arguments with the noise that they demand, if `sigma` is 0.

    ConfigError if the rate is 0, or so large that the pull towards the center overshoots.
    """
    if not rate > 0 or rate * args["decay"] >= 1:
        raise ConfigError(
            f"noisy: the learning rate is {rate:g} and decay {args['decay']:g}. The rate is above "
            "0, and rate times decay below 1."
        )
    if args["sigma"]:
        return args
    sigma = accountant.sigma_for(args["epsilon"], args["delta"], **_bound(steps, rate, args))
    return args | {"sigma": sigma}


def certify(steps: int, rate: float, **args: Any) -> dict[str, float | None]:
    """What a phase guarantees: {"epsilon", "delta", "mu", "sigma", "epsilon_of_the_theorem", ...}.

    args: as `settle` returns them. The epsilon is that of the accountant; that of the theorem is
    None with decay, which it does not know.
    """
    mu = accountant.gdp(sigma=args["sigma"], **_bound(steps, rate, args))
    kept = {key: float(args[key]) for key in ("delta", "sigma", "radius", "clip", "decay")}
    theorem = None
    if not args["decay"]:
        where = dict(radius=args["radius"], steps=steps, rate=rate, clip=args["clip"])
        theorem = accountant.theorem_epsilon(args["sigma"], args["delta"], **where)
    epsilon = accountant.epsilon_of(mu, args["delta"])
    return {"epsilon": epsilon, "mu": mu, "epsilon_of_the_theorem": theorem, "steps": steps,
            "rate": rate, **kept}  # fmt: skip


def _bound(steps: int, rate: float, args: dict[str, Any]) -> dict[str, Any]:
    start = 2 * args["radius"]  # of two points inside the ball
    return dict(start=start, steps=steps, rate=rate, clip=args["clip"], decay=args["decay"])
