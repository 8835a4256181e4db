"""Retain Label: complete forget images as if they were retain images (Li et al., ICLR 2024).

    match="outputs"   L_R = |h(x_r) - h0(x_r)|^2     L_F = |h(x_f) - h0(x_r)|^2
    match="images"    L_R = l(x_r -> x_r)            L_F = l(x_f -> x_r)

h = D . E . T is the model's output (pixels, or logits), h0 that of the original, l the model's own
loss. Each forget image is paired with the retain image in the same row of the batch. |.|^2 is the
mean over the output values on which the loss is defined, such as hidden patches. In L_F both models
get the mask of the forget image, so that h0 completes the same cells as h. Encoder and decoder are
trained. The solver's alpha of 0.25 is that of L2L; the released runs name none for this baseline.

"outputs" is what the released baseline is meant to do, a mean square over the logits, and the
default. "images" has the retain images themselves as targets; it is the default of a diffusion
model. The output of a diffusion model is noise, and the noise that turns x_r into the noisy x_f
depends on x_f as well, which l takes into account. "outputs" does not: as released, its target is
the noise that h0 predicts for x_r with x_r's own mask, noise level and draw, so that h learns a
mean of noise.

Departures from the released code of MAGE: there the forget term is multiplied by the weights of the
retain rows, so it acts on retain images and never on a forget image; and its logits include ids
that are not codes. The released code of diffusion weighs the rows correctly and has "outputs" only,
averaged over the whole image.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import unknown_name
from l2l_jax.lib.objectives import output_distance, training_loss
from l2l_jax.types import ImageToImage, Inputs, Metrics, Params, Rng, Scalar, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain", "forget")
TEACHER = True
MAKES_ORIGINAL = False
FORGET_TARGETS_RETAIN = True
VARIANTS = (dict(match="images"), dict(match="outputs"))

MATCHES = ("outputs", "images")


def retain_target(model: ImageToImage, *, match: str = "", **args: object) -> str:
    """Returns "original" if outputs are matched, "data" if images are."""
    del args
    return "original" if (match or MATCHES[model.shows_hidden]) == "outputs" else "data"


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Rng,
    *,
    match: str = "",
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (L_R, L_F, metrics of the model on retain if match is "images", else {}).

    match: one of MATCHES; "" chooses the default of the model. ConfigError for another value.
    """
    match = match or MATCHES[model.shows_hidden]
    if match not in MATCHES:
        raise unknown_name("match", match, MATCHES)
    retain, forget = batch.side("retain"), batch.side("forget")
    retain_key, forget_key = rngs.fold(rng, "retain"), rngs.fold(rng, "forget")
    # The forget objective has no gradient with respect to the retain images.
    labels = jax.lax.stop_gradient(retain.images)

    if match == "images":
        retain_loss, metrics = training_loss(model, student, retain, retain_key)
        inputs = model.corrupt(
            student, forget.images, forget.mask, forget_key, targets=labels, visible=forget.visible
        )
        return retain_loss, jnp.mean(model.loss(student, inputs)), metrics

    def output_gap(inputs: Inputs, target_inputs: Inputs) -> Scalar:
        """Mean square of (student's output of inputs - teacher's output of target_inputs)."""
        outputs = model.decode(student, model.encode(student, inputs), inputs)
        targets = model.decode(teacher, model.encode(teacher, target_inputs), target_inputs)
        loss_mask = model.loss_mask(inputs) & model.loss_mask(target_inputs)
        return jnp.mean(output_distance(outputs, jax.lax.stop_gradient(targets), loss_mask))

    retain_inputs = model.corrupt(
        teacher, retain.images, retain.mask, retain_key, visible=retain.visible
    )
    forget_inputs, label_inputs = (
        model.corrupt(teacher, images, forget.mask, forget_key, visible=forget.visible)
        for images in (forget.images, labels)
    )
    # label_inputs and forget_inputs share their noise: as a target it would be trivial.
    target_inputs = retain_inputs if model.shows_hidden else label_inputs
    return output_gap(retain_inputs, retain_inputs), output_gap(forget_inputs, target_inputs), {}
