"""Distill: rebuild a model from a teacher on retain images only (UNDO, Lee et al., NeurIPS 2025).

    L_R = outputs * d(h(x_r), h'(x_r))  +  latents * d(E(x_r), E'(x_r))                  L_F = 0

The third of the three steps of "Distillation Robustifies Unlearning" (arXiv 2506.06278): unlearn,
perturb (methods/perturb.py), distill. h' = D' . E' . T is the teacher: the original, or with
`teacher` of the phase the model at the end of an earlier phase, such as the unlearned one. What the
perturbation damaged comes back only as far as retain images show it. Student and teacher get the
same masks and draws. Encoder and decoder are trained.

`outputs` and `latents` weigh the two terms; one of them may be 0. d is a mean square, divided by
the variance of the teacher's outputs and by the mean square of its latents unless `relative` is
False; for tokens, d of the outputs is KL(teacher || student). Outputs are compared where the loss
of the model counts: on hidden patches of an MAE, masked tokens of a MAGE, the hole of a diffusion
model. There the teacher was trained; its other outputs are arbitrary. An autoencoder and a VQ-GAN
are trained on all pixels, so all of them count. L_R also has those terms of the model's own loss
that have no target: without them a codebook would not follow the latents.

The training images may contain none to forget: the teacher still tells what it knows of them.
on="all" is refused unless `forget_images` is True. The paper matches logits of language models;
latents and weights are our choice.
"""

import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.objectives import matching
from l2l_jax.types import Bounds, ImageToImage, Metrics, Params, Rng, Scalar, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain",)
TEACHER = True
MAKES_ORIGINAL = False
VARIANTS = (dict(latents=0.0), dict(relative=False))  # without outputs the decoder is not trained
BOUNDS = {"outputs": Bounds(0), "latents": Bounds(0)}


def spares_forget(*, forget_images: bool = False, **others: object) -> bool:
    """Whether on="all" is refused, because the forget images are among all images."""
    del others
    return not forget_images


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Rng,
    *,
    outputs: int | float = 1.0,
    latents: int | float = 1.0,
    relative: bool = True,
    forget_images: bool = False,
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (L_R, 0, {"output_gap", "latent_gap"}, of the terms that count).

    forget_images: allows on="all". ConfigError if both weights are 0.
    """
    del forget_images
    if not outputs and not latents:
        raise ConfigError(
            "distill: outputs and latents are both 0, so that nothing is matched. Give one of them "
            "a weight above 0."
        )
    retain, key = batch.side("retain"), rngs.fold(rng, "retain")
    inputs = model.corrupt(teacher, retain.images, retain.mask, key, visible=retain.visible)
    gap, metrics = matching(
        model, student, teacher, inputs, outputs=outputs, latents=latents, relative=relative
    )
    return gap + model.own_loss(student, inputs), jnp.zeros(()), metrics
