"""One step in one layer: the one that matters to forgetting and not to retaining (SLUG, 2025).

    importance_l = |g_F,l| / |theta_l|        alignment_l = |cos(g_F,l, g_R,l)|
    l*           = argmax  importance_l sqrt(1 - alignment_l^2)
    theta_l*     <- theta_l* - lam g_F,l*     every other layer stays

g is the gradient of an objective, and a layer is the kernel of a convolution or of a linear layer
that is no embedding. lam is the longest step, by bisection, at which the retain objective of the
batch is at most (1 + tolerance) times its value before; it is at most |theta_l| / |g_F,l| times
`longest`.

Source: Cai, Tan, Asif, "Targeted Unlearning with Single Layer Unlearning Gradient", ICML 2025, and
its released code: importance, alignment, which arrays count, and the bisection. There the layers of
the Pareto front of importance and alignment are tried one by one, and a validation figure chooses
between them. Here the layer is one of that front, too: the one with the longest part of its
relative forget gradient that is orthogonal to the retain gradient. There the bisection looks at
accuracies of a validation set; here it looks at the retain objective of the step's own images.
tolerance = 0.1, longest = 1 and trials = 12 are our choices, and untuned.

Use it in a phase of one step with the optimizer sgd, lr=1 and no decay, and a large batch_size with
accumulate: then the step of the phase is the step above. The form word `slug` of the configs does
so, with the objectives of `max_loss` without a bound. The retain objective must not be zero at the
start, as one that compares with the original is: then lam is about 0. Blocks that are stored as one
stacked array (scan=True) count as one layer.

Cost: one forward and two backward passes, and `trials` forward passes. Memory: two gradients and a
copy of the parameters.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.trees import inner, weighted_sum
from l2l_jax.types import Bounds, Metrics, Objectives, Params

TINY = 1e-20  # replaces smaller values in denominators

BOUNDS = {"tolerance": Bounds(0), "longest": Bounds(0, open_low=True), "trials": Bounds(1, 100)}


def update(
    objectives: Objectives,
    student: Params,
    step: Int[Array, ""] | int,
    *,
    tolerance: int | float = 0.1,
    longest: int | float = 1.0,
    trials: int = 12,
) -> tuple[Params, Metrics]:
    """Returns (lam g_F in the chosen layer, zero elsewhere; metrics).

    Metrics include "loss" (retain), "layer" (its place among all arrays in the order of
    jax.tree.leaves), "importance", "alignment" and "lam".
    """
    del step
    if not (tolerance >= 0 and longest > 0):
        raise ConfigError(
            f"slug: tolerance={tolerance} is 0 or more, and longest={longest} above 0: they say "
            "how far the one step goes."
        )
    (retain, forget), metrics = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0))
    chosen, about = choose(student, retain, forget)
    at = iter(range(len(jax.tree.leaves(forget))))
    direction = jax.tree.map(lambda x: jnp.where(chosen == next(at), x, 0.0), forget)
    furthest = longest / jnp.maximum(about["importance"], TINY)
    limit = metrics["retain"] + tolerance * jnp.abs(metrics["retain"])

    def bisect(trial: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        lam = jnp.where(trial == 0, high, (low + high) / 2)
        _, found = objectives.gradients(weighted_sum(1.0, student, -lam, direction))
        good = found["retain"] <= limit
        return jnp.where(good, lam, low), jnp.where(good, high, lam)

    lam, _ = jax.lax.fori_loop(0, trials, bisect, (jnp.zeros_like(furthest), furthest))
    gradient = jax.tree.map(lambda x: lam * x, direction)
    layer = chosen.astype(jnp.float32)
    return gradient, metrics | about | {"loss": metrics["retain"], "layer": layer, "lam": lam}


def choose(student: Params, retain: Params, forget: Params) -> tuple[Int[Array, ""], Metrics]:
    """Returns (number of the chosen array in the order of jax.tree.leaves, what it was chosen by).

    If no array is a layer, all arrays are candidates.
    """
    paths = jax.tree_util.tree_leaves_with_path(student)
    layers = [_is_layer(path, x) for path, x in paths]
    importance, alignment = [], []
    for theta, r, f in zip(*map(jax.tree.leaves, (student, retain, forget)), strict=True):
        lengths = [jnp.sqrt(inner(x, x)) for x in (theta, r, f)]
        importance.append(lengths[2] / jnp.maximum(lengths[0], TINY))
        alignment.append(jnp.abs(inner(r, f)) / jnp.maximum(lengths[1] * lengths[2], TINY))
    importance, alignment = jnp.stack(importance), jnp.stack(alignment)
    score = importance * jnp.sqrt(jnp.maximum(1 - alignment**2, 0.0))
    chosen = jnp.argmax(jnp.where(jnp.array(layers) | (not any(layers)), score, -1.0))
    return chosen, {"importance": importance[chosen], "alignment": alignment[chosen]}


def _is_layer(path: tuple[Any, ...], array: Any) -> bool:
    name = jax.tree_util.keystr(path)
    return array.ndim > 1 and "kernel" in name and "embed" not in name
