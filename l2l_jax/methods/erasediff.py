"""EraseDiff: forget toward a random target, with retaining as the upper problem (Wu et al., 2024).

    L_R = l(x_r)                                            the training loss on retain
    L_F = mean |e(y_t) - u|^2,  u ~ U(0, 1)                 for a diffusion model, over the hole
    L_F = l(x_f -> u),          u ~ U(0, 1) for every value     for other models

e is the network, which is trained to return the noise of y_t; on forget images it learns to return
uniform noise instead, which denoises nothing. For other models the target of the completion is
uniform noise; for tokens, codes equally likely. Encoder and decoder are trained. The solver is
`bilevel`, which makes retaining the upper and forgetting the lower problem.

Source: arXiv 2401.05779 and its released code (the target, and the two problems); the constants are
those of solvers/bilevel.py. The released code draws its noise levels in pairs t and T - t; here T
draws them.

Cost: one forward and one backward pass on each side, and those of the solver.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.noise import uniform_targets
from l2l_jax.lib.objectives import output_distance, training_loss
from l2l_jax.types import ImageToImage, Metrics, Params, Rng, Scalar, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain", "forget")
SOLVER = "bilevel"
TEACHER = False
MAKES_ORIGINAL = False


def objectives(
    model: ImageToImage, student: Params, teacher: Params, batch: UnlearnBatch, rng: Rng
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (L_R, L_F, metrics of the model on retain)."""
    del teacher
    forget = batch.side("forget")
    retain_key, forget_key, noise_key = (rngs.fold(rng, k) for k in ("retain", "forget", "noise"))
    retain_loss, metrics = training_loss(model, student, batch.side("retain"), retain_key)
    if model.shows_hidden:
        inputs = model.corrupt(
            student, forget.images, forget.mask, forget_key, visible=forget.visible
        )
        made = model.decode(student, model.encode(student, inputs), inputs)
        noise = jax.random.uniform(noise_key, made.shape)
        return retain_loss, jnp.mean(output_distance(made, noise, model.loss_mask(inputs))), metrics
    images, targets = uniform_targets(model, student, forget.images, noise_key)
    inputs = model.corrupt(
        student, images, forget.mask, forget_key, targets=targets, visible=forget.visible
    )
    return retain_loss, jnp.mean(model.loss(student, inputs)), metrics
