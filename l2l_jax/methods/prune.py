"""Prune: the objectives by which solvers/remove_units.py finds the units to remove.

    L_X = sum_i F_X,i theta_i^2 / 2        grad L_X = F_X,i theta_i        for X = R, F
    F_X,i = mean over images of side X of (d l / d theta_i)^2

L_X is the estimate of optimal brain damage (LeCun et al., 1990) of how much the loss l on side X
rises if all parameters are removed, with the diagonal of the empirical Fisher matrix F as Hessian.
F is held constant in the gradient. Nothing is trained: the solver `remove_units` reads the two
gradients, removes units, and the phase ends after this one step. Encoder and decoder are pruned.

Source: "Pruning for Robust Concept Erasing in Diffusion Models" (2024), which could not be read;
see solvers/remove_units.py. F is estimated with random signs, `draws` times for each batch
(lib/fisher.py); draws = 4 is our choice, and untuned.

Cost: on each side one forward pass and `draws` backward passes. Memory: three gradients.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import fisher
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Batch, Bounds, ImageToImage, Metrics, Params, Rng, Scalar, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain", "forget")
SOLVER = "remove_units"
TEACHER = False
MAKES_ORIGINAL = False
BOUNDS = {"draws": Bounds(1, 1000)}


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Rng,
    *,
    draws: int = 4,
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (L_R, L_F, {}). ConfigError if draws is below 1."""
    del teacher
    if draws < 1:
        raise ConfigError(f"prune: draws={draws} is how often signs are drawn, 1 or more.")

    def saliency(side: Batch, name: str) -> Scalar:
        key, signs = rngs.fold(rng, name), rngs.fold(rng, name, "signs")
        inputs = model.corrupt(student, side.images, side.mask, key, visible=side.visible)
        trained = {group: student[group] for group in TRAINABLE}
        fixed = jax.lax.stop_gradient(student)

        def loss(params: Params) -> jax.Array:
            return model.loss(fixed | params, inputs)

        found = fisher.diagonal(loss, jax.lax.stop_gradient(trained), signs, draws)
        parts = jax.tree.map(lambda f, x: jnp.sum(f * x.astype(jnp.float32) ** 2), found, trained)
        return jnp.asarray(sum(jax.tree.leaves(parts))) / 2

    retain, forget = (saliency(batch.side(name), name) for name in SIDES)
    return retain, forget, {}
