"""L2L: keep the retain latents, move the forget latents to noise (Li et al., ICLR 2024, Eq. 10).

    L_R = | E(T(x_r)) - E0(T(x_r)) |^2       retain latents stay where the original encoder put them
    L_F = | E(T(x_f)) - E0(T(n))   |^2       forget latents go where the original encoder puts noise

E is the encoder being trained, E0 the original one. The decoder is shared and frozen, which the
paper's Theorem 1 requires. The solver forms the total L_R + alpha L_F (solvers/weighted.py); the
released runs used alpha = 0.25. The paper prints norms, |.|_2 without the square; its code and this
file take mean squares over all latent values, averaged within each side, so that alpha does not
depend on how many images of each side a batch holds.

The paper draws n ~ N(0, Sigma), ties Sigma to the forget set in Lemma 1 and sets it to I in
Appendix C.4. Here `noise` chooses the distribution (lib/noise.py): "gaussian_like", the default and
closest to Lemma 1, is N(mean, std) of each colour channel over the forget images of the batch;
"standard" is N(0, I); the others are "uniform" and "constant".

`fixed_noise` chooses how often n is drawn. False, the default: a new n for every image in every
step. An image that is seen often then has no single target, and the least mean square is at the
mean of the latents of noise: the forget latents of all images come together at one point. True:
each image keeps its n in all steps, so that an image that is seen often moves to the latents of its
own n, and the forget latents spread as those of noise do. The metric forget_spread tells the two
apart: the variance of the student's forget latents across the images of the batch, divided by that
of the latents of T(n). It is 1 where they spread as noise does, and 0 where they are all equal. (n
has the moments of the batch, so it still changes a little with the other images of the batch.)
Measured on the bundled MAE, seed 0, False and True: with 5,200 images to forget and 200 steps, each
seen 2.5 times, forget_spread is .31 and .31; with 16 images and 100 steps, each seen 400 times, .35
and .42. Figures and attacks see no difference: PSNR of unseen forget images 9.0 and 9.1 dB, and
10.0 and 10.1; after relearning for 10 steps on 16 images 15.5 and 15.5, and 15.7 and 15.8 dB. So
the default is that of the paper.

`target` chooses the forget target. "paper": the latents of T(n), as above. "released", for
diffusion models only: what the released diffusion code does, the latents of T(x_f) with pure noise
in the hole, y_t = epsilon, at any noise level. The visible pixels stay those of the forget image,
so this target is much closer to the student's own latents, and at high noise levels, where y_t is
almost pure noise anyway, nearly identical to them.

If E makes several feature maps, their mean squares are added: every map has the same weight, as
released, so maps with large values contribute most. `relative` divides each map's mean square by
the mean square of its target in the batch, so that alpha weighs relative errors; each side has its
own units.

Departures from the released code: moments are those of the forget images alone and per channel
(there: one scalar over the whole batch, retain images included); n is not clamped to [0, 1] unless
`clip` is set (there: always); one teacher pass per image (there: two); no dropout in the student;
no reseeding. With accumulated gradients the moments are those of each micro-batch; if noise is
tokenised before training (engine/token_bank.py) they are those of up to 2,048 forget images.
"""

import functools

import jax
import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.lib.noise import NOISES, channel_moments, noise_images
from l2l_jax.lib.objectives import across_images, latent_distance, together
from l2l_jax.types import ImageToImage, Metrics, NoisyModel, Params, Rng, Scalar, UnlearnBatch

TRAINABLE = ("encoder",)
SIDES = ("retain", "forget")
TEACHER = True
MAKES_ORIGINAL = False
OVERSHOOTS = True  # 60 steps on 16 images: their losses tell them from never-seen ones, AUC .88
VARIANTS = (dict(relative=True), dict(target="released"), dict(fixed_noise=True))

draw_noise = noise_images

TARGETS = ("paper", "released")


def retain_target(model: ImageToImage, **args: object) -> str:
    """Returns "original": the retain target is the original encoder's latents."""
    del model, args
    return "original"


def needs_seeds(*, fixed_noise: bool = False, **others: object) -> bool:
    """Whether each image needs a seed that stays the same."""
    del others
    return fixed_noise


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Rng,
    *,
    noise: str = "gaussian_like",
    clip: bool = False,
    fixed_noise: bool = False,
    target: str = "paper",
    relative: bool = False,
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (L_R, L_F, {"forget_spread"}). Student and teacher see the same masks and draws of T.

    ConfigError for an unknown target or noise, and for target="released" with another model than a
    diffusion model or together with `noise`, `clip` or `fixed_noise`.
    """
    _check(model, noise, clip or fixed_noise, target)
    retain, forget = batch.side("retain"), batch.side("forget")
    retain_key, forget_key = rngs.fold(rng, "retain"), rngs.fold(rng, "forget")

    retain_inputs = model.corrupt(
        teacher, retain.images, retain.mask, retain_key, visible=retain.visible
    )
    forget_inputs = model.corrupt(
        teacher, forget.images, forget.mask, forget_key, visible=forget.visible
    )
    if target == "released":
        assert isinstance(model, NoisyModel)  # by _check
        noise_inputs = model.only_noise(forget_inputs)
    else:
        n = batch.noise  # tokens, if they come from a token bank
        if n is None:
            shape, mean, std = channel_moments(forget.images)
            if fixed_noise:
                assert forget.seeds is not None  # by needs_seeds
                own = functools.partial(noise_images, noise=noise, clip=clip)
                keys = jax.vmap(jax.random.key)(forget.seeds)
                n = jax.vmap(lambda key: own(key, (1, *shape[1:]), mean, std)[0])(keys)
            else:
                key = rngs.fold(rng, "noise")
                n = noise_images(key, shape, mean, std, noise=noise, clip=clip)
        noise_inputs = model.corrupt(teacher, n, forget.mask, forget_key, visible=forget.visible)
    fixed, trained = (functools.partial(model.encode, params) for params in (teacher, student))
    targets = jax.lax.stop_gradient(together(fixed, retain_inputs, noise_inputs))
    retain_latents, forget_latents = together(trained, retain_inputs, forget_inputs)
    retain_loss = latent_distance(retain_latents, targets[0], relative)
    forget_loss = latent_distance(forget_latents, targets[1], relative)
    spread = across_images(forget_latents) / jnp.maximum(across_images(targets[1]), 1e-12)
    return retain_loss, forget_loss, {"forget_spread": spread}


def _check(model: ImageToImage, noise: str, shaped: bool, target: str) -> None:
    if target not in TARGETS:
        raise unknown_name("target of l2l", target, TARGETS)
    if target == "released" and not isinstance(model, NoisyModel):
        raise ConfigError(
            "l2l: target='released' puts pure noise into the hole that a diffusion model sees; "
            "this model sees no hidden pixels. Leave target at 'paper'."
        )
    if target == "released" and (noise != NOISES[0] or shaped):
        raise ConfigError(
            "l2l: target='released' uses no noise image, so that noise, clip and fixed_noise "
            "have no effect; leave them out."
        )
