"""Conflicting gradients projected before they are added (Yu et al., NeurIPS 2020, PCGrad).

    where <g_R, g_F> < 0:   g_R' = g_R - <g_R, g_F> / |g_F|^2 g_F
                            g_F' = g_F - <g_F, g_R> / |g_R|^2 g_R
    g = g_R' + alpha g_F'

so that neither objective undoes what the other gains, to first order. scope="tensor", the default,
looks at each array of parameters by itself, as DiF3CON does for continual unlearning (Ciocirlan et
al.), "global" at all of them at once, as PCGrad does. With rescale=True a projected gradient gets
back the norm it had, as in DiF3CON. alpha, by default the 0.25 of L2L, stays as it is, where that
moves it over the steps. Where a model keeps its blocks as one array (scan=True), a "tensor" is that
of all blocks together.

Memory: two gradients at a time in place of one, and two backward passes after one forward pass.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib.errors import ConfigError, unknown
from l2l_jax.lib.trees import combine, dot, inner
from l2l_jax.types import Array, Metrics, Objectives, Params

SCOPES = ("tensor", "global")
TINY = 1e-20  # stands in for a squared norm of zero

VARIANTS = (dict(scope="global"), dict(rescale=True))


def update(
    objectives: Objectives,
    student: Params,
    step: Array,
    *,
    alpha: float = 0.25,
    scope: str = "tensor",
    rescale: bool = False,
) -> tuple[Params, Metrics]:
    """g, and metrics with the weighted loss and the share of parameters in conflict."""
    del step
    if scope not in SCOPES:
        raise unknown("scope of pcgrad", scope, SCOPES)
    if not alpha >= 0:
        raise ConfigError(f"pcgrad: alpha={alpha} would undo forgetting; it is 0 or more.")
    (retain, forget), metrics = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0))
    if scope == "global":
        both = dot(retain, forget)
        pair = project(retain, forget, both, dot(retain, retain), dot(forget, forget), rescale)
        gradient, share = combine(1.0, pair[0], alpha, pair[1]), (both < 0).astype(jnp.float32)
    else:
        gradient = jax.tree.map(lambda r, f: _tensor(r, f, alpha, rescale), retain, forget)
        conflicts = jax.tree.map(lambda r, f: r.size * (inner(r, f) < 0), retain, forget)
        total = sum(leaf.size for leaf in jax.tree.leaves(retain))
        share = sum(jax.tree.leaves(conflicts)) / total
    loss = metrics["retain"] + alpha * metrics["forget"]
    return gradient, metrics | {"loss": loss, "conflict": share}


def _tensor(retain: Array, forget: Array, alpha: float, rescale: bool) -> Array:
    both, own, other = inner(retain, forget), inner(retain, retain), inner(forget, forget)
    kept, gone = project(retain, forget, both, own, other, rescale)
    return kept + alpha * gone


def project(
    a: Params, b: Params, inner: Array, a2: Array, b2: Array, rescale: bool
) -> tuple[Params, Params]:
    """Both without what is against the other; inner = <a, b>, a2 = |a|^2, b2 = |b|^2."""
    against = jnp.minimum(inner, 0.0)
    kept = combine(1.0, a, -against / jnp.maximum(b2, TINY), b)
    gone = combine(1.0, b, -against / jnp.maximum(a2, TINY), a)
    if rescale:  # |a'|^2 = |a|^2 sin^2, and the same share of |b|^2
        cosine = against / jnp.maximum(jnp.sqrt(a2) * jnp.sqrt(b2), TINY)
        sine = 1.0 - cosine**2
        grown = jax.lax.rsqrt(jnp.maximum(sine, 1e-6))  # opposite gradients leave nothing to grow
        kept, gone = (jax.tree.map(lambda x: grown * x, tree) for tree in (kept, gone))
    return kept, gone
