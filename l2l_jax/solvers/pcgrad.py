"""Project conflicting gradients before adding them (Yu et al., NeurIPS 2020, PCGrad).

    if <g_R, g_F> < 0:   g_R' = g_R - <g_R, g_F> / |g_F|^2 g_F
                         g_F' = g_F - <g_F, g_R> / |g_R|^2 g_R
    g = g_R' + alpha g_F'

To first order, neither objective then increases the other. scope="tensor", the default, projects
each array of parameters separately, as DiF3CON does for continual unlearning (Ciocirlan et al.);
scope="global" treats all parameters as one vector, as PCGrad does. rescale=True gives a projected
gradient the norm it had before, as in DiF3CON. alpha is constant (DiF3CON changes it over the
steps); its default 0.25 is that of L2L. If a model stores its blocks as one stacked array
(scan=True), a "tensor" is that array of all blocks together.

Memory: two gradients at a time instead of one, and two backward passes after one forward pass.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.lib.trees import MIN_SQUARED_NORM, dot, inner, weighted_sum
from l2l_jax.types import Bounds, Metrics, Objectives, Params, Scalar

Gradient = TypeVar("Gradient", Params, Array)  # of all parameters, or of one array

SCOPES = ("tensor", "global")

VARIANTS = (dict(scope="global"), dict(rescale=True))
BOUNDS = {"alpha": Bounds(0)}  # below 0 it would undo forgetting


def update(
    objectives: Objectives,
    student: Params,
    step: Int[Array, ""] | int,
    *,
    alpha: int | float = 0.25,
    scope: str = "tensor",
    rescale: bool = False,
) -> tuple[Params, Metrics]:
    """Returns (g, metrics).

    Metrics include "loss" (retain + alpha * forget) and "conflict", the fraction of parameters
    whose gradients were projected.
    """
    del step
    if scope not in SCOPES:
        raise unknown_name("scope of pcgrad", scope, SCOPES)
    if not alpha >= 0:
        raise ConfigError(f"pcgrad: alpha={alpha} would undo forgetting; it must be 0 or more.")
    (retain, forget), metrics = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0))
    if scope == "global":
        product = dot(retain, forget)
        pair = project(retain, forget, product, dot(retain, retain), dot(forget, forget), rescale)
        gradient = weighted_sum(1.0, pair[0], alpha, pair[1])
        conflict = (product < 0).astype(jnp.float32)
    else:
        gradient = jax.tree.map(lambda r, f: _project_array(r, f, alpha, rescale), retain, forget)
        conflicts = jax.tree.map(lambda r, f: r.size * (inner(r, f) < 0), retain, forget)
        total = sum(leaf.size for leaf in jax.tree.leaves(retain))
        conflict = sum(jax.tree.leaves(conflicts)) / total
    loss = metrics["retain"] + alpha * metrics["forget"]
    return gradient, metrics | {"loss": loss, "conflict": conflict}


def _project_array(
    retain: Float[Array, "..."], forget: Float[Array, "..."], alpha: int | float, rescale: bool
) -> Float[Array, "..."]:
    """g of one array of parameters."""
    product, retain2, forget2 = inner(retain, forget), inner(retain, retain), inner(forget, forget)
    projected = project(retain, forget, product, retain2, forget2, rescale)
    return projected[0] + alpha * projected[1]


def project(
    a: Gradient, b: Gradient, product: Scalar, a2: Scalar, b2: Scalar, rescale: bool
) -> tuple[Gradient, Gradient]:
    """Returns (a', b'): each without its component against the other; the same if none is.

    product = <a, b>, a2 = |a|^2, b2 = |b|^2. rescale: a' and b' get the norms of a and b.
    """
    conflict = jnp.minimum(product, 0.0)
    a_projected = weighted_sum(1.0, a, -conflict / jnp.maximum(b2, MIN_SQUARED_NORM), b)
    b_projected = weighted_sum(1.0, b, -conflict / jnp.maximum(a2, MIN_SQUARED_NORM), a)
    if rescale:  # |a'|^2 = |a|^2 sin^2, and |b'|^2 = |b|^2 sin^2
        cosine = conflict / jnp.maximum(jnp.sqrt(a2) * jnp.sqrt(b2), MIN_SQUARED_NORM)
        sine2 = 1.0 - cosine**2
        factor = jax.lax.rsqrt(jnp.maximum(sine2, 1e-6))  # bounded: opposite gradients leave ~0
        a_projected = jax.tree.map(lambda x: factor * x, a_projected)
        b_projected = jax.tree.map(lambda x: factor * x, b_projected)
    return a_projected, b_projected
