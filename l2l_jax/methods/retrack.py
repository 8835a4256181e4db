"""ReTrack: complete forget images as their nearest retain images (Shi et al., arXiv 2509.13007).

    y_t ~ q(.|x_f)        w_i = q(y_t|x_i) / sum_j q(y_t|x_j)      over the k nearest retain images
    L_F = mean |e(y_t) - sum_i w_i e_i|^2        e_i = (y_t - sqrt(gamma) x_i) / sigma
    L_R = l(x_r)

Fine-tuning on retain images alone, with samples y_t drawn around forget images, has the importance
weights w_i: what y_t would have come from if x_f had not been there. All but the k largest are
left out; the others are scaled to the sum 1. |e - e_i|^2 summed with these weights is the above up
to a constant. q(.|x) is the distribution of x with noise added and e the network; all pixels are
those of the hole, and the visible ones those of x_f. At low noise the nearest retain image has all
the weight, at high noise all k are alike. Encoder and decoder are trained.

For a model whose T adds no noise this is the limit of low noise, where k has no effect:

    L_F = mean |h(x_f) - h0(x_n)|^2        n: the retain image nearest to x_f

with h0(x_n) the completion of x_n by the original, under the mask of x_f. Near means a small mean
square over all pixels, or few tokens that differ.

Source: arXiv 2509.13007, whose abstract and first page give the importance sampling, the dominant
terms and the k nearest neighbours; its formulas and k could not be read. k = 5 is our choice, and
untuned. Departure: neighbours are sought among the retain images of the batch, not of the whole
split; a larger batch comes closer. The form word `retrack` of the configs has the solver `weighted`
with alpha = 1.

Cost: a forward and a backward pass on each side; with noise no pass of the network more, without it
a forward pass of the original. Memory: the original's parameters; with noise B x B energies.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from l2l_jax.lib import pixels
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.objectives import output_distance, training_loss
from l2l_jax.types import (
    Batch,
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
TEACHER = True
MAKES_ORIGINAL = False
FORGET_TARGETS_RETAIN = True
BOUNDS = {"k": Bounds(1, 10**6)}


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Rng,
    *,
    k: int = 5,
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (L_R, L_F, metrics of the model on retain).

    k larger than the batch counts as the batch. ConfigError if it is below 1.
    """
    if k < 1:
        raise ConfigError(f"retrack: k={k} is a number of nearest retain images, 1 or more.")
    retain, forget = batch.side("retain"), batch.side("forget")
    key = rngs.fold(rng, "forget")
    retain_loss, metrics = training_loss(model, student, retain, rngs.fold(rng, "retain"))
    # The forget objective has no gradient with respect to the retain images.
    others = jax.lax.stop_gradient(retain.images)
    if isinstance(model, NoisyModel):
        return retain_loss, redirected(model, student, forget, others, key, k), metrics
    inputs = model.corrupt(student, forget.images, forget.mask, key, visible=forget.visible)
    near = others[nearest(forget.images, others)]
    aims = model.corrupt(teacher, near, forget.mask, key, visible=forget.visible)
    target = jax.lax.stop_gradient(model.decode(teacher, model.encode(teacher, aims), aims))
    made = model.decode(student, model.encode(student, inputs), inputs)
    counts = model.loss_mask(inputs) & model.loss_mask(aims)
    return retain_loss, jnp.mean(output_distance(made, target, counts)), metrics


def nearest(images: Array, others: Array) -> Array:
    """Returns [B] int32: for each of images [B, ...], the row of the nearest of others [R, ...]."""

    def row(image: Array) -> Array:
        gaps = (others != image) if jnp.issubdtype(image.dtype, jnp.integer) else others - image
        return jnp.argmin(jnp.sum(jnp.square(gaps.astype(jnp.float32)), range(1, others.ndim)))

    return jax.lax.map(row, jax.lax.stop_gradient(images))


def redirected(
    model: NoisyModel, student: Params, forget: Batch, others: Array, key: Rng, k: int
) -> Scalar:
    """Returns L_F of a model whose T adds noise; others: the retain images [B, H, W, 3]."""
    count = len(others)
    noisy = model.corrupt(student, forget.images, forget.mask, key, visible=forget.visible).noisy

    def seen(images: Array) -> object:
        """`noisy`, explained by other images, at the same noise levels and with the same masks."""
        inputs = model.corrupt(student, images, forget.mask, key, visible=forget.visible)
        return model.seen_as(inputs, noisy)

    def energy(shift: Array) -> Array:
        return model.energy(seen(jnp.roll(others, shift, axis=0)))

    energies = jax.lax.stop_gradient(jax.lax.map(energy, jnp.arange(count)))
    w = weights(energies.T, k)  # of row b for the retain images b, b - 1, b - 2, ...
    at = (jnp.arange(count)[:, None] - jnp.arange(count)) % count
    by_image = jnp.zeros_like(w).at[jnp.arange(count)[:, None], at].set(w)
    mean = jnp.tensordot(by_image, others, 1)
    hidden = pixels.hidden_pixels(forget.mask, model.image_size)
    inputs = seen(jnp.where(hidden, mean, forget.images))
    return jnp.mean(model.loss(student, inputs))


def weights(energies: Float[Array, "B R"], k: int) -> Float[Array, "B R"]:
    """Returns w: softmax(-energy) over the k smallest energies of each row, 0 for the others."""
    kept = jax.lax.top_k(-energies, min(k, energies.shape[1]))[0][:, -1:]
    return jax.nn.softmax(jnp.where(-energies >= kept, -energies, -jnp.inf), axis=1)
