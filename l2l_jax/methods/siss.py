"""SISS: forget by subtracting scores, both taken at one sample (Alberti et al., ICLR 2025).

    m ~ (1 - lam) q(.|x_r) + lam q(.|x_f)      row by row, both at one noise level and one noise

    L_R =   mean w_r |e(m) - e_r|^2     e_i = (m - sqrt(gamma) x_i) / sigma,  sigma^2 = 1 - gamma
    L_F = - mean w_f |e(m) - e_f|^2     d_i = |e_i|^2 / 2, a sum

    w_r = q(m|x_r) / q(m) = 1 / ((1 - lam) + lam exp(d_r - d_f))      (1 - lam) w_r + lam w_f = 1
    w_f = q(m|x_f) / q(m) = 1 / ((1 - lam) exp(d_f - d_r) + lam)

e is the network, trained to find the noise; q(.|x) is x with noise; pixels are those of the hole.
The weights undo where m came from: the means are those of the diffusion loss on retain images and
of minus that loss on forget images, for every lam. What lam moves is the spread, w_r <= 1 / (1 -
lam) and w_f <= 1 / lam: 0.5, the paper's default, bounds both; lam = 0 takes every m from a retain
image (there: the sample of naive deletion), and w_f has no bound. Images further apart than the
noise is wide do not overlap, and their row counts for one side only: for holes of 128x128 pixels
that is so, roughly, at all but the last tenth of Palette's levels. Encoder and decoder are trained.

The paper subtracts s L(x_f); s is the solver's. The released runs choose it anew in every step,
which is solvers/normalized.py, and no other is meant: L_F has no lower bound.

Departures: completing is conditional, so e sees in each term the visible pixels of that term's
image: two forward passes (there: one). Inside the hole m is only where the question is asked, so
that the weights stay right. Both sides have the mask of the retain row. Per-example losses are
means (there: sums). The paper draws x from all data; its released runs draw it from those that are
kept, and so does this (all: on="all"). Some of those runs also clip the sum of both gradients at 1;
here that is optimizer.clip.

On a model whose T adds no noise (without `seen_as` and `energy`, types.ImageToImage) q(.|x_r) and
q(.|x_f) do not overlap: w_r is 1 / (1 - lam) for a sample from x_r and 0 for one from x_f, w_f the
other way round. What is computed there is the expectation over that choice, the model's own loss
and minus the model's own loss, each side with its mask and lam without effect: the paper's
"SISS (No IS)", a negative gradient whose length the solver fixes.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.objectives import native_loss
from l2l_jax.types import Array, ImageToImage, Metrics, NoisyModel, Params, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain", "forget")
SOLVER = "normalized"  # the one it is meant for
TEACHER = False
MAKES_ORIGINAL = False


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Array,
    *,
    lam: float = 0.5,
) -> tuple[Array, Array, Metrics]:
    """(L_R, L_F, mean weights); of a model without noise the metrics of the model on retain."""
    del teacher
    if not 0 <= lam <= 1:
        raise ConfigError(
            f"siss: lam={lam} is no share; it says how many samples come from forget images, 0 to "
            "1 (0.5: both weights are bounded)."
        )
    if not isinstance(model, NoisyModel):
        return without_noise(model, student, batch, rng)
    keep, drop = batch.retain, batch.forget
    key = rngs.fold(rng, "noise")  # one for both: the same noise level, the same noise
    kept, dropped = (
        model.corrupt(student, side.images, keep.mask, key, visible=keep.visible)
        for side in (keep, drop)
    )
    from_drop = jax.random.bernoulli(rngs.fold(rng, "choice"), lam, (len(keep.images), 1, 1, 1))
    # What is sampled is given: through it neither side may reach the objective of the other.
    sample = jax.lax.stop_gradient(jnp.where(from_drop, dropped.noisy, kept.noisy))
    kept, dropped = model.seen_as(kept, sample), model.seen_as(dropped, sample)
    w_r, w_f = weights(model.energy(kept), model.energy(dropped), lam)
    retain = jnp.mean(w_r * model.loss(student, kept))
    forget = -jnp.mean(w_f * model.loss(student, dropped))
    return retain, forget, {"weight_retain": jnp.mean(w_r), "weight_forget": jnp.mean(w_f)}


def weights(d_r: Array, d_f: Array, lam: float) -> tuple[Array, Array]:
    """(w_r, w_f), constants: no gradient. As logarithms, since exp(d_r - d_f) has no bound."""
    gap = jax.lax.stop_gradient(d_r - d_f)
    of_keep, of_drop = jnp.log1p(-jnp.float32(lam)), jnp.log(jnp.float32(lam))  # -inf is no weight
    w_r = jnp.exp(-jnp.logaddexp(of_keep, of_drop + gap))
    return w_r, jnp.exp(-jnp.logaddexp(of_keep - gap, of_drop))


def without_noise(
    model: ImageToImage, student: Params, batch: UnlearnBatch, rng: Array
) -> tuple[Array, Array, Metrics]:
    """(the model's own loss on retain, minus that on forget, metrics of the model on retain)."""
    drop = batch.forget
    retain, metrics = native_loss(model, student, batch.retain, rngs.fold(rng, "retain"))
    key = rngs.fold(rng, "forget")
    inputs = model.corrupt(student, drop.images, drop.mask, key, visible=drop.visible)
    return retain, -jnp.mean(model.loss(student, inputs)), metrics
