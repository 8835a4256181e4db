"""Remove the units that matter to the forget side and not to the retain side, in one step.

    S_X(u)  = sum_{i in u} theta_i g_X,i         for X = R, F;  g = gradient of an objective
    rho(u)  = S_F(u) / (S_R(u) + floor mean_u S_R)
    theta_i <- 0   for all i of the `share` of all units with the largest rho

With the objectives of the method `prune`, L_X = sum_i F_X,i theta_i^2 / 2, S_X(u) is the estimate
of optimal brain damage of how much the loss on side X rises if unit u is removed. A unit is an
output of a convolution or of a linear layer: one index of the last axis of its kernel, and of its
bias if it has one. A removed unit returns 0; a norm behind it may add its own bias again.

Sources: "Pruning for Robust Concept Erasing in Diffusion Models" (2024) removes neurons that a
concept needs; its formulas could not be read. The score is that of LeCun et al. (1990), with a
Fisher estimate, compared between two sides as in Foster et al. (Selective Synaptic Dampening, AAAI
2024). share = 0.02 and floor = 0.1 are our choices, and untuned. Scores below 0, which only other
methods' objectives can have, count as 0.

Use it in a phase of one step with the optimizer sgd, lr=1 and no decay: g = theta where a unit
goes, so that the step leaves 0. The form word `prune` of the configs does so, and adds `finetune`.

Cost: the gradients of the method, and no further pass. Memory: two gradients.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Bounds, Metrics, Objectives, Params

TINY = 1e-20  # a score below it is none

BOUNDS = {"share": Bounds(0, 1, open_low=True, open_high=True), "floor": Bounds(0, open_low=True)}


def update(
    objectives: Objectives,
    student: Params,
    step: Int[Array, ""] | int,
    *,
    share: int | float = 0.02,
    floor: int | float = 0.1,
) -> tuple[Params, Metrics]:
    """Returns (theta where a unit is removed, 0 elsewhere; metrics).

    Metrics include "loss" (forget, what removing everything would add to its loss), "removed" (the
    share of units) and "removed_forget", "removed_retain" (the share of all S_F and of all S_R that
    the removed units have).
    """
    del step
    if not (0 < share < 1 and floor > 0):
        raise ConfigError(
            f"remove_units: share={share} is a part of all units, above 0 and below 1, and "
            f"floor={floor} is above 0."
        )
    (retain, forget), metrics = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0))
    s_r, s_f = (jnp.concatenate(scores(student, side)) for side in (retain, forget))
    rho = s_f / (s_r + floor * jnp.mean(s_r) + TINY)
    count = max(1, round(share * len(rho)))
    threshold = jax.lax.top_k(rho, count)[0][-1]
    gone = (rho >= threshold) & (rho > 0)
    kept = 1.0 / jnp.maximum(jnp.stack([jnp.sum(s_f), jnp.sum(s_r)]), TINY)
    added = {
        "loss": metrics["forget"],
        "removed": jnp.mean(gone.astype(jnp.float32)),
        "removed_forget": jnp.sum(jnp.where(gone, s_f, 0.0)) * kept[0],
        "removed_retain": jnp.sum(jnp.where(gone, s_r, 0.0)) * kept[1],
    }
    return spread(student, gone), metrics | added


def scores(student: Params, gradient: Params) -> list[Float[Array, " units"]]:
    """Returns S of the units of each layer, in the order of `layers`; none is negative."""
    found = []
    for layer, side in zip(layers(student), layers(gradient), strict=True):
        total = jnp.zeros(layer["kernel"].shape[-1])
        for name in layer:
            product = layer[name] * side[name]
            total += jnp.sum(product, tuple(range(product.ndim - 1)))
        found.append(jnp.maximum(total, 0.0))
    return found


def layers(tree: Any) -> list[Params]:
    """Returns {"kernel", "bias" if there is one} of every layer; the order is that of the names."""
    if "kernel" in tree:
        return [{name: tree[name] for name in ("kernel", "bias") if name in tree}]
    inner = (tree[name] for name in sorted(tree, key=str) if isinstance(tree[name], Mapping))
    return [layer for node in inner for layer in layers(node)]


def spread(student: Params, gone: Array) -> Params:
    """Returns a tree like `student`: its values where the unit is gone, else 0."""
    at = 0

    def walk(node: Any) -> Any:
        nonlocal at
        made = jax.tree.map(jnp.zeros_like, node)
        if "kernel" in node:
            units = gone[at : at + node["kernel"].shape[-1]]
            at += len(units)
            for name in layers(node)[0]:
                made[name] = jnp.where(units, node[name], 0.0)
            return made
        for name in sorted(node, key=str):
            if isinstance(node[name], Mapping):
                made[name] = walk(node[name])
        return made

    return walk(student)
