"""Noisy Label: learn to complete forget images to noise (baseline of Li et al., ICLR 2024).

    L_R = l(x_r -> x_r)      the training loss of the model, mean over retain
    L_F = l(x_f -> n)        the same loss with noise as the target of the reconstruction

Encoder and decoder are trained. For a model of pixels n is a noise image (`noise`, lib/noise.py).
For a model of tokens n is tokens drawn independently; `codes` chooses the distribution:

    histogram   that of the tokens of the batch's forget images
    uniform     all codes equally likely
    gaussian    round(clip(N(mean, std), 0, codes - 1)) of the code *numbers*, as in the released
                code; moments of the forget images alone (there: of the whole batch, retain too)

Departures. The released code draws from a Gaussian over code numbers. Code numbers have no order,
so that distribution favours codes in the middle of the codebook for no reason; hence "histogram" is
the default. For a diffusion model the released code shows pure noise in the hole and asks for that
noise. Here the target is the noise epsilon that turns n into the noisy forget image, so the model
learns to map forget images to noise images. The solver's alpha of 0.25 is that of L2L; the released
runs name none for this baseline.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import noise as noises
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.lib.objectives import training_loss
from l2l_jax.types import (
    ImageToImage,
    Metrics,
    Params,
    Rng,
    Scalar,
    TokenModel,
    Tokens,
    UnlearnBatch,
)

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
    rng: Rng,
    *,
    noise: str = "gaussian_like",
    codes: str = "histogram",
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (L_R, L_F, metrics of the model on retain)."""
    del teacher
    _check(model, noise, codes)
    forget = batch.side("forget")
    images = forget.images
    retain_key, forget_key, noise_key = (rngs.fold(rng, k) for k in ("retain", "forget", "noise"))
    retain_loss, metrics = training_loss(model, student, batch.side("retain"), retain_key)
    if model.takes_tokens:
        assert isinstance(model, TokenModel)
        is_tokens = jnp.issubdtype(images.dtype, jnp.integer)
        images = images if is_tokens else model.tokenize(student, images)
        targets = noise_codes(noise_key, images, model.codes, codes)
    else:
        targets = noises.noise_images(noise_key, *noises.channel_moments(images), noise=noise)
    inputs = model.corrupt(
        student, images, forget.mask, forget_key, targets=targets, visible=forget.visible
    )
    return retain_loss, jnp.mean(model.loss(student, inputs)), metrics


def _check(model: ImageToImage, noise: str, codes: str) -> None:
    """ConfigError for an unknown name, or if the argument that this model ignores was changed."""
    if codes not in CODES:
        raise unknown_name("way to draw codes", codes, CODES)
    if noise not in noises.NOISES:
        raise unknown_name("noise", noise, noises.NOISES)
    if not model.takes_tokens and codes != CODES[0]:
        raise ConfigError(f"noisy_label: codes={codes!r} is for models of tokens; leave it out.")
    if model.takes_tokens and noise != noises.NOISES[0]:
        raise ConfigError(f"noisy_label: noise={noise!r} is for models of pixels; leave it out.")


def noise_codes(rng: Rng, tokens: Tokens, count: int, distribution: str) -> Tokens:
    """Random targets: integers in [0, count) of the shape of `tokens`, drawn as CODES describe."""
    if distribution == "uniform":
        return jax.random.randint(rng, tokens.shape, 0, count)
    if distribution == "histogram":
        return jax.random.choice(rng, tokens.ravel(), tokens.shape)
    mean, std = jnp.mean(tokens), jnp.std(tokens)
    numbers = mean + std * jax.random.normal(rng, tokens.shape)
    return jnp.round(jnp.clip(numbers, 0, count - 1)).astype(tokens.dtype)
