"""Random Encoder: move the forget latents to random latents (Li et al., ICLR 2024, baseline).

    L_R = |E(T(x_r)) - E0(T(x_r))|^2
    L_F = |E(T(x_f)) - z|^2,    z ~ N(m, s^2),  m and s of E0(T(x_f)) over the batch

E0 is the original encoder. m and s are scalars, one pair for each array of latents, as released.
Only the encoder is trained. The solver's alpha of 0.25 is that of L2L; the released runs name none
for this baseline.

z is drawn anew in every step and does not depend on the image. The encoder that minimises L_F
therefore returns the mean of z, the one number m, at every place of every forget latent: the
latents collapse to a constant, and do not become random.

Departures from the released code of MAGE: there the forget term is multiplied by the weights of the
retain rows, so it moves retain latents to noise and never a forget latent; and its moments are
those of the whole batch, retain images included. The released code of diffusion weighs the rows
correctly, but its moments are those of the whole batch, too.
"""

import functools

import jax

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.noise import latents_like
from l2l_jax.lib.objectives import latent_distance, together
from l2l_jax.types import ImageToImage, Metrics, Params, Rng, Scalar, UnlearnBatch

TRAINABLE = ("encoder",)
SIDES = ("retain", "forget")
TEACHER = True
MAKES_ORIGINAL = False


def retain_target(model: ImageToImage, **args: object) -> str:
    """Returns "original": the retain target is the original encoder's latents."""
    del model, args
    return "original"


def objectives(
    model: ImageToImage, student: Params, teacher: Params, batch: UnlearnBatch, rng: Rng
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (L_R, L_F, {})."""
    retain, forget = batch.side("retain"), batch.side("forget")
    retain_key, forget_key, noise_key = (rngs.fold(rng, k) for k in ("retain", "forget", "noise"))
    retain_inputs = model.corrupt(
        teacher, retain.images, retain.mask, retain_key, visible=retain.visible
    )
    forget_inputs = model.corrupt(
        teacher, forget.images, forget.mask, forget_key, visible=forget.visible
    )
    fixed, trained = (functools.partial(model.encode, params) for params in (teacher, student))
    retain_target, original = jax.lax.stop_gradient(together(fixed, retain_inputs, forget_inputs))
    forget_target = latents_like(noise_key, original)
    retain_latents, forget_latents = together(trained, retain_inputs, forget_inputs)
    retain_loss = latent_distance(retain_latents, retain_target)
    return retain_loss, latent_distance(forget_latents, forget_target), {}
