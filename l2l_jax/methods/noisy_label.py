"""Noisy Label: learn to complete forget images to noise (baseline of Li et al., ICLR 2024).

    L_R = l(x_r -> x_r)      the model's own loss, mean over retain
    L_F = l(x_f -> n)        the same loss with noise as what should be reconstructed

Encoder and decoder are trained. For a model of pixels n is a noise image (`noise`, lib/noise.py).
For a model of tokens n are tokens drawn independently (`codes`):

    histogram   from the codes of the forget images of the batch, as often as they occur there
    uniform     every code alike
    gaussian    round(clip(N(mean, std), 0, codes - 1)) of the code *numbers*, as in the released
                code; moments of the forget images alone (there: of the whole batch, retain too)

Departure: the released draw is a Gaussian over code numbers, which have no order, so that codes in
the middle of the codebook are favoured for no reason; hence "histogram" is the default. For a
diffusion model the released code shows pure noise in the hole and asks for that noise; here it is
the noise that explains the noisy forget image by n, so that images are what is mapped to noise. The
solver's alpha of 0.25 is that of L2L; the released runs name none for this baseline.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import noise as noises
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError, unknown
from l2l_jax.lib.objectives import native_loss
from l2l_jax.types import Array, ImageToImage, Metrics, Params, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain", "forget")
TEACHER = False
MAKES_ORIGINAL = False
VARIANTS = (dict(codes="uniform"), dict(codes="gaussian"))

CODES = ("histogram", "uniform", "gaussian")


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Array,
    *,
    noise: str = "gaussian_like",
    codes: str = "histogram",
) -> tuple[Array, Array, Metrics]:
    """(L_R, L_F, metrics of the model on retain)."""
    del teacher
    _check(model, noise, codes)
    drop, images = batch.forget, batch.forget.images
    retain, metrics = native_loss(model, student, batch.retain, rngs.fold(rng, "retain"))
    key_drop, key_noise = rngs.fold(rng, "forget"), rngs.fold(rng, "noise")
    if model.takes_tokens:
        given = jnp.issubdtype(images.dtype, jnp.integer)
        images = images if given else model.tokenize(student, images)
        target = noise_codes(key_noise, images, model.codes, codes)
    else:
        target = noises.noise_images(key_noise, *noises.about(images), noise=noise)
    inputs = model.corrupt(
        student, images, drop.mask, key_drop, targets=target, visible=drop.visible
    )
    return retain, jnp.mean(model.loss(student, inputs)), metrics


def _check(model: ImageToImage, noise: str, codes: str) -> None:
    """ConfigError for unknown names, and for the one that this kind of model does not read."""
    if codes not in CODES:
        raise unknown("way to draw codes", codes, CODES)
    if noise not in noises.NOISES:
        raise unknown("noise", noise, noises.NOISES)
    if not model.takes_tokens and codes != CODES[0]:
        raise ConfigError(f"noisy_label: codes={codes!r} is for models of tokens; leave it out.")
    if model.takes_tokens and noise != noises.NOISES[0]:
        raise ConfigError(f"noisy_label: noise={noise!r} is for models of pixels; leave it out.")


def noise_codes(rng: Array, tokens: Array, count: int, how: str) -> Array:
    """Tokens to learn in place of `tokens`: integers of the same shape in [0, count)."""
    if how == "uniform":
        return jax.random.randint(rng, tokens.shape, 0, count)
    if how == "histogram":
        return jax.random.choice(rng, tokens.ravel(), tokens.shape)
    mean, std = jnp.mean(tokens), jnp.std(tokens)
    drawn = mean + std * jax.random.normal(rng, tokens.shape)
    return jnp.round(jnp.clip(drawn, 0, count - 1)).astype(tokens.dtype)
