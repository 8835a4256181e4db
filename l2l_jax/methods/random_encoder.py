"""Random Encoder: send the forget latents to random latents (Li et al., ICLR 2024, baseline).

    L_R = |E(T(x_r)) - E0(T(x_r))|^2
    L_F = |E(T(x_f)) - z|^2,    z ~ N(m, s^2),  m and s of E0(T(x_f)) over the batch

E0 is the original encoder. One scalar mean and standard deviation for each array of latents, as
released. Only the encoder is trained. The solver's alpha of 0.25 is that of L2L; the released runs
name none for this baseline.

Departures from the released code of MAGE: there the forget term is weighed with the retain rows'
weight, so that it sends retain latents to noise and never a forget latent; and its moments are
those of the whole batch, retain images included. That of diffusion weighs its rows rightly, and has
such moments too.
"""

import jax

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.noise import latents_like
from l2l_jax.lib.objectives import latent_distance
from l2l_jax.types import Array, ImageToImage, Metrics, Params, UnlearnBatch

TRAINABLE = ("encoder",)
SIDES = ("retain", "forget")
TEACHER = True
MAKES_ORIGINAL = False


def retain_target(model: ImageToImage, **args: object) -> str:
    """The retain latents stay where the original puts them."""
    del model, args
    return "original"


def objectives(
    model: ImageToImage, student: Params, teacher: Params, batch: UnlearnBatch, rng: Array
) -> tuple[Array, Array, Metrics]:
    """(L_R, L_F, {})."""
    keep, drop = batch.retain, batch.forget
    key_keep, key_drop, key_noise = (rngs.fold(rng, k) for k in ("retain", "forget", "noise"))
    kept = model.corrupt(teacher, keep.images, keep.mask, key_keep, visible=keep.visible)
    dropped = model.corrupt(teacher, drop.images, drop.mask, key_drop, visible=drop.visible)
    stay = jax.lax.stop_gradient(model.encode(teacher, kept))
    go = latents_like(key_noise, jax.lax.stop_gradient(model.encode(teacher, dropped)))
    retain = latent_distance(model.encode(student, kept), stay)
    return retain, latent_distance(model.encode(student, dropped), go), {}
