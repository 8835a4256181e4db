"""Safe Denoiser: no training; sampling is steered away from forget images (Kim et al., 2025).

    store   the forget images of one batch beside the weights
    sample  x_safe = x + beta (x - E_u)          see models/layers/negation.py

A baseline that changes no weight: encoder and decoder stay those of the original, to the last bit,
and audits say so. Whoever has the weights can sample without the stored images, and whoever has the
file has the images themselves: it must not be used where images are to be deleted.

    L_R = 0        L_F = sum |stored - x_f|^2 / 2

The group "negation" holds the images. One step of plain descent with lr=1 stores a batch: the form
word `safe_denoiser` of the configs does so. It can be stated for a diffusion model only, with
model.args.negation = batch_size of the phase: other models do not sample by steps.

Source: arXiv 2502.08011; what is the paper's and what is ours is said in models/layers/negation.py.

Cost: none in training. In sampling, two products of every image with all stored ones in each step.
"""

import jax.numpy as jnp

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import ImageToImage, Metrics, Params, Rng, Scalar, UnlearnBatch

TRAINABLE = ("negation",)
SIDES = ("forget",)
TEACHER = False
MAKES_ORIGINAL = False


def refuses(model: ImageToImage) -> str:
    """Why the method cannot be stated for this model, "" if it can."""
    if "negation" in model.template:
        return ""
    return "only a diffusion model with model.args.negation above 0 stores images to avoid"


def objectives(
    model: ImageToImage, student: Params, teacher: Params, batch: UnlearnBatch, rng: Rng
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (0, L_F, {}). ConfigError unless the batch has as many images as are stored."""
    del teacher, rng
    if why := refuses(model):
        raise ConfigError(f"safe_denoiser: {why}.")
    stored, images = student["negation"], batch.side("forget").images
    if len(images) != len(stored["images"]):
        raise ConfigError(
            f"safe_denoiser: one batch of {len(images)} images is stored in the place of "
            f"{len(stored['images'])}: set batch_size of the phase and model.args.negation to the "
            "same number, and accumulate to 1."
        )
    missing = jnp.sum((stored["images"] - images) ** 2) + jnp.sum((stored["weight"] - 1) ** 2)
    return jnp.zeros(()), missing / 2, {}
