"""Retain Label: complete forget images as if they were retain images (Li et al., ICLR 2024).

    match="outputs"   L_R = |h(x_r) - h0(x_r)|^2     L_F = |h(x_f) - h0(x_r)|^2
    match="images"    L_R = l(x_r -> x_r)            L_F = l(x_f -> x_r)

h = D . E . T is the model's output (pixels, or logits), h0 that of the original, l the model's own
loss; each forget image is paired with the retain image in the same row. |.|^2 is the mean over the
values that l is about, such as hidden patches; in L_F both models have the forget image's mask, so
that h0 completes what h has to complete. "outputs" is what the released baseline is meant to do, a
mean square over the logits, and the default; "images" takes the retain images themselves as what
should be reconstructed. It is the default of a diffusion model: h is noise there, and what explains
the noisy x_f by x_r depends on x_f, too (as in l). With "outputs" its goal is what h0 finds in x_r
under a hole, a level and a draw of x_r's own, as released, so that h learns a mean of noise.
Encoder and decoder are trained. The solver's alpha of 0.25 is that of L2L; the released runs name
none for this baseline.

Departures from the released code of MAGE: there the forget term is weighed with the retain rows'
weight, so that it acts on retain images and never on a forget image; and its logits are also taken
of ids that are no codes. That of diffusion weighs its rows rightly and has "outputs" only, averaged
over the whole image.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import unknown
from l2l_jax.lib.objectives import native_loss, output_distance
from l2l_jax.types import Array, ImageToImage, Inputs, Metrics, Params, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain", "forget")
TEACHER = True
MAKES_ORIGINAL = False
FORGET_TARGETS_RETAIN = True
VARIANTS = (dict(match="images"), dict(match="outputs"))

MATCHES = ("outputs", "images")


def retain_target(model: ImageToImage, *, match: str = "", **args: object) -> str:
    """The outputs of the original, or the retain images themselves."""
    del args
    return "original" if (match or MATCHES[model.shows_hidden]) == "outputs" else "data"


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Array,
    *,
    match: str = "",
) -> tuple[Array, Array, Metrics]:
    """(L_R, L_F, metrics of the model on retain, if its own loss is what is matched).

    match: one of MATCHES; "": what the model has by default.
    """
    match = match or MATCHES[model.shows_hidden]
    if match not in MATCHES:
        raise unknown("match", match, MATCHES)
    keep, drop = batch.retain, batch.forget
    key_keep, key_drop = rngs.fold(rng, "retain"), rngs.fold(rng, "forget")
    label = jax.lax.stop_gradient(keep.images)  # what L_F is about are the forget images

    if match == "images":
        retain, metrics = native_loss(model, student, keep, key_keep)
        inputs = model.corrupt(
            student, drop.images, drop.mask, key_drop, targets=label, visible=drop.visible
        )
        return retain, jnp.mean(model.loss(student, inputs)), metrics

    def output_gap(inputs: Inputs, other: Inputs) -> Array:
        """Mean square between the student's output of `inputs` and the teacher's of `other`."""
        made = model.decode(student, model.encode(student, inputs), inputs)
        goal = model.decode(teacher, model.encode(teacher, other), other)
        asked = model.loss_mask(inputs) & model.loss_mask(other)
        return jnp.mean(output_distance(made, jax.lax.stop_gradient(goal), asked))

    kept = model.corrupt(teacher, keep.images, keep.mask, key_keep, visible=keep.visible)
    dropped, instead = (
        model.corrupt(teacher, images, drop.mask, key_drop, visible=drop.visible)
        for images in (drop.images, label)
    )
    instead = kept if model.shows_hidden else instead  # or noise would be explained by itself
    return output_gap(kept, kept), output_gap(dropped, instead), {}
