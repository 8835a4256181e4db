"""SISS: forget by subtracting scores, both taken at one sample (Alberti et al., ICLR 2025).

    m ~ (1 - lam) q(.|x_r) + lam q(.|x_f)      row by row, both at one noise level and one noise

    L_R =   mean w_r |e(m) - e_r|^2     e_i = (m - sqrt(gamma) x_i) / sigma,  sigma^2 = 1 - gamma
    L_F = - mean w_f |e(m) - e_f|^2     d_i = |e_i|^2 / 2, a sum

    w_r = q(m|x_r) / q(m) = 1 / ((1 - lam) + lam exp(d_r - d_f))      (1 - lam) w_r + lam w_f = 1
    w_f = q(m|x_f) / q(m) = 1 / ((1 - lam) exp(d_f - d_r) + lam)

e is the network, trained to predict the noise; q(.|x) is the distribution of x with noise added;
all pixels are those of the hole. The weights are importance weights: for every lam the expectation
of L_R is the diffusion loss on retain images, that of L_F minus the diffusion loss on forget
images. lam changes the variance only, since w_r <= 1 / (1 - lam) and w_f <= 1 / lam. The paper's
default of 0.5 bounds both; lam = 0 takes every m from a retain image (the paper's sampling of naive
deletion) and leaves w_f unbounded. If two images are further apart than the noise is wide, their
distributions do not overlap and the row counts for one side only. For holes of 128x128 pixels this
is the case at all but about the last tenth of Palette's noise levels. Encoder and decoder are
trained.

The paper subtracts s L(x_f); s belongs to the solver. The released runs choose it anew in every
step, which is solvers/normalized.py. Use no other solver: L_F has no lower bound.

Departures. Completion is conditional, so in each term e sees the visible pixels of that term's
image, which takes two forward passes (there: one). m replaces pixels inside the hole only, the
pixels on which the loss is defined, so the weights stay correct. Both sides have the mask of the
retain row. Losses of an example are means over pixels (there: sums). The paper draws x from all
data; its released runs draw x from the retained data, and so does this file (on="all" uses all
data). Some released runs also clip the sum of both gradients at 1; here that is optimizer.clip.

For a model whose T adds no noise (one without `seen_as` and `energy`, types.NoisyModel) q(.|x_r)
and q(.|x_f) do not overlap: for a sample from x_r the weights are w_r = 1 / (1 - lam) and w_f = 0,
for a sample from x_f the other way round. For such a model this file computes the expectation over
that choice: the model's own loss on retain and minus its own loss on forget, each side with its own
mask; lam has no effect. This is the paper's "SISS (No IS)", a negative gradient whose length the
solver fixes.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.objectives import together, training_loss
from l2l_jax.types import (
    Bounds,
    ImageToImage,
    Metrics,
    NoisyModel,
    Params,
    Rng,
    Scalar,
    UnlearnBatch,
)

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain", "forget")
SOLVER = "normalized"
TEACHER = False
MAKES_ORIGINAL = False
BOUNDS = {"lam": Bounds(0, 1)}


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Rng,
    *,
    lam: int | float = 0.5,
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (L_R, L_F, mean weights of both sides).

    For a model without noise the metrics are those of the model on retain. ConfigError if lam is
    not in [0, 1].
    """
    del teacher
    if not 0 <= lam <= 1:
        raise ConfigError(
            f"siss: lam={lam} is no share; it is the share of samples that come from forget "
            "images, 0 to 1 (0.5 bounds both weights)."
        )
    if not isinstance(model, NoisyModel):
        return without_noise(model, student, batch, rng)
    retain, forget = batch.side("retain"), batch.side("forget")
    key = rngs.fold(rng, "noise")  # one key for both sides: the same noise level and noise
    retain_inputs, forget_inputs = (
        model.corrupt(student, side.images, retain.mask, key, visible=retain.visible)
        for side in (retain, forget)
    )
    choice_key, rows = rngs.fold(rng, "choice"), (len(retain.images), 1, 1, 1)
    from_forget = jax.random.bernoulli(choice_key, lam, rows)
    # No gradient passes through the sample: neither objective depends on the other side's images.
    sample = jax.lax.stop_gradient(jnp.where(from_forget, forget_inputs.noisy, retain_inputs.noisy))
    retain_inputs = model.seen_as(retain_inputs, sample)
    forget_inputs = model.seen_as(forget_inputs, sample)
    w_r, w_f = weights(model.energy(retain_inputs), model.energy(forget_inputs), lam)
    losses = together(functools.partial(model.loss, student), retain_inputs, forget_inputs)
    retain_loss, forget_loss = jnp.mean(w_r * losses[0]), -jnp.mean(w_f * losses[1])
    metrics = {"weight_retain": jnp.mean(w_r), "weight_forget": jnp.mean(w_f)}
    return retain_loss, forget_loss, metrics


def weights(
    d_r: Float[Array, "*rows"], d_f: Float[Array, "*rows"], lam: int | float
) -> tuple[Float[Array, "*rows"], Float[Array, "*rows"]]:
    """Returns (w_r, w_f) of the shape of d_r and d_f, without gradient.

    Computed from logarithms, since exp(d_r - d_f) may overflow.
    """
    gap = jax.lax.stop_gradient(d_r - d_f)
    log_retain = jnp.log1p(-jnp.float32(lam))  # -inf for lam = 1: a weight of 0
    log_forget = jnp.log(jnp.float32(lam))
    w_r = jnp.exp(-jnp.logaddexp(log_retain, log_forget + gap))
    return w_r, jnp.exp(-jnp.logaddexp(log_retain - gap, log_forget))


def without_noise(
    model: ImageToImage, student: Params, batch: UnlearnBatch, rng: Rng
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (training loss on retain, minus the loss on forget, metrics of the model on retain).

    The objectives of a model whose T adds no noise.
    """
    forget = batch.side("forget")
    retain_key, forget_key = rngs.fold(rng, "retain"), rngs.fold(rng, "forget")
    retain_loss, metrics = training_loss(model, student, batch.side("retain"), retain_key)
    inputs = model.corrupt(student, forget.images, forget.mask, forget_key, visible=forget.visible)
    return retain_loss, -jnp.mean(model.loss(student, inputs)), metrics
