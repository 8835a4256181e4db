"""Retain Label: complete forget images as if they were retain images (Li et al., ICLR 2024).

    match="outputs"   L_R = |h(x_r) - h0(x_r)|^2     L_F = |h(x_f) - h0(x_r)|^2
    match="images"    L_R = l(x_r -> x_r)            L_F = l(x_f -> x_r)

h = D . E . T is the model's output (pixels, or logits), h0 that of the original, l the model's own
loss; each forget image is paired with the retain image in the same row. "outputs" is what the
released baseline is meant to do, a mean square over the logits; "images" takes the retain images
themselves as what should be reconstructed. Encoder and decoder are trained. The solver's alpha of
0.25 is that of L2L; the released runs name none for this baseline.

Departures from the released code: there the forget term is weighed with the retain rows' weight, so
that it acts on retain images and never on a forget image; and its logits are also taken of ids that
are no codes.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.distance import latent_distance
from l2l_jax.lib.errors import unknown
from l2l_jax.lib.native import native_loss
from l2l_jax.types import Array, ImageToImage, Metrics, Outputs, Params, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain", "forget")
TEACHER = True
MAKES_ORIGINAL = False

MATCHES = ("outputs", "images")


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Array,
    *,
    match: str = "outputs",
) -> tuple[Array, Array, Metrics]:
    """(L_R, L_F, metrics of the model on retain, if its own loss is what is matched)."""
    if match not in MATCHES:
        raise unknown("match", match, MATCHES)
    keep, drop = batch.retain, batch.forget
    key_keep, key_drop = rngs.fold(rng, "retain"), rngs.fold(rng, "forget")

    if match == "images":
        retain, metrics = native_loss(model, student, keep, key_keep)
        inputs = model.corrupt(
            student, drop.images, drop.mask, key_drop, targets=keep.images, visible=drop.visible
        )
        return retain, jnp.mean(model.loss(student, inputs)), metrics

    def outputs(params: Params, inputs: object) -> Outputs:
        return model.decode(params, model.encode(params, inputs), inputs)

    kept = model.corrupt(teacher, keep.images, keep.mask, key_keep, visible=keep.visible)
    dropped = model.corrupt(teacher, drop.images, drop.mask, key_drop, visible=drop.visible)
    goal = jax.lax.stop_gradient(outputs(teacher, kept))
    retain = latent_distance(outputs(student, kept), goal)
    return retain, latent_distance(outputs(student, dropped), goal), {}
