"""L2L: keep the retain latents, send the forget latents to noise (Li et al., ICLR 2024, Eq. 10).

    L_R = | E(T(x_r)) - E0(T(x_r)) |^2       retain stays where the original encoder put it
    L_F = | E(T(x_f)) - E0(T(n))   |^2       forget goes where the original encoder puts noise

E is the encoder being trained, E0 the original one; the decoder is shared and frozen, which is what
the paper's Theorem 1 needs. The total L_R + alpha L_F is the solver's (solvers/weighted.py); the
released runs used alpha = 0.25. The paper prints norms, |.|_2 without the square; its code and this
file take mean squares over all latent values, averaged within each side, so that alpha does not
depend on how many images of each side a batch holds.

The paper draws n ~ N(0, Sigma), ties Sigma to the forget set in Lemma 1 and sets it to I in
Appendix C.4. Here `noise` chooses (lib/noise.py): "gaussian_like", N(mean, std) of each colour
channel over the forget images of the batch, in the spirit of Lemma 1, and the default;
"standard", N(0, I); "uniform"; "constant".

`target` says what the teacher is shown on the forget side. "paper": T(n), as above. "released", for
diffusion models only: what the released diffusion code does, T(x_f) with pure noise in the hole,
y_t = epsilon, whatever the noise level; the context stays that of the forget image, so that much
less is asked for, and next to nothing at high noise levels, where y_t is almost that anyway.

Where E makes several feature maps, their mean squares are added: every map counts alike, as
released, so that maps with large values count most. `relative` takes each map in units of the mean
square of its goal in the batch, so that alpha weighs shares; each side has its own units.

Departures from the released code: moments come from the forget images alone and per channel (there:
one scalar over the whole batch, retain images included); n is not clamped to [0, 1] unless `clip`
(there: always); one teacher pass per image (there: two); no dropout in the student; no reseeding.
With accumulated gradients the moments are those of each micro-batch; where noise is tokenised
beforehand (l2l_jax/engine/token_bank.py) they are those of up to 2,048 of all forget images.
"""

import jax

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError, unknown
from l2l_jax.lib.noise import NOISES, about, noise_images
from l2l_jax.lib.objectives import latent_distance
from l2l_jax.types import Array, ImageToImage, Metrics, NoisyModel, Params, UnlearnBatch

TRAINABLE = ("encoder",)
SIDES = ("retain", "forget")
TEACHER = True
MAKES_ORIGINAL = False
VARIANTS = (dict(relative=True), dict(target="released"))

draw_noise = noise_images

TARGETS = ("paper", "released")


def retain_target(model: ImageToImage, **args: object) -> str:
    """The retain latents stay where the original puts them."""
    del model, args
    return "original"


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Array,
    *,
    noise: str = "gaussian_like",
    clip: bool = False,
    target: str = "paper",
    relative: bool = False,
) -> tuple[Array, Array, Metrics]:
    """(L_R, L_F, {}); student and teacher see the same mask and the same draws of T."""
    if target not in TARGETS:
        raise unknown("target of l2l", target, TARGETS)
    if target == "released" and not isinstance(model, NoisyModel):
        raise ConfigError(
            "l2l: target='released' puts pure noise into the hole that a diffusion model is shown, "
            "and this model is shown nothing of a hole; leave target at 'paper'."
        )
    if target == "released" and (noise != NOISES[0] or clip):
        raise ConfigError(
            f"l2l: target='released' has no noise image, so that noise={noise!r} and clip={clip} "
            "have no effect; leave them out."
        )
    keep, drop = batch.retain, batch.forget
    key_keep, key_drop, key_noise = (rngs.fold(rng, k) for k in ("retain", "forget", "noise"))

    kept = model.corrupt(teacher, keep.images, keep.mask, key_keep, visible=keep.visible)
    stay = jax.lax.stop_gradient(model.encode(teacher, kept))
    retain = latent_distance(model.encode(student, kept), stay, relative)

    dropped = model.corrupt(teacher, drop.images, drop.mask, key_drop, visible=drop.visible)
    if target == "released":
        assert isinstance(model, NoisyModel)
        nothing = model.only_noise(dropped)
    else:
        n = batch.noise  # as tokens, if they were made before
        if n is None:
            n = noise_images(key_noise, *about(drop.images), noise=noise, clip=clip)
        nothing = model.corrupt(teacher, n, drop.mask, key_drop, visible=drop.visible)
    go = jax.lax.stop_gradient(model.encode(teacher, nothing))
    forget = latent_distance(model.encode(student, dropped), go, relative)
    return retain, forget, {}
