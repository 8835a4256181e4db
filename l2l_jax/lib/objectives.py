"""Terms of the methods' objectives: distances, and the model's own training loss."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from l2l_jax.types import (
    Batch,
    ImageToImage,
    Latents,
    Metrics,
    Outputs,
    Params,
    PerImage,
    Rng,
    Scalar,
)


def latent_distance(a: Latents, b: Latents, relative: bool = False) -> Scalar:
    """Mean squared difference in float32, summed over the arrays of a pytree (feature maps).

    b is the target. relative: divide the term of each array by the mean square of b's array.
    """

    def mean(x: Array, y: Array) -> Scalar:
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)
        unit = jax.lax.stop_gradient(jnp.mean(y**2)) + 1e-12 if relative else 1.0
        return jnp.mean((x - y) ** 2) / unit

    return jnp.asarray(sum(jax.tree.leaves(jax.tree.map(mean, a, b))))


def across_images(latents: Latents) -> Scalar:
    """Variance of each latent value across the images of a batch; mean over values, no gradient.

    Several arrays (feature maps) count by their number of values.
    """
    leaves = [jax.lax.stop_gradient(x).astype(jnp.float32) for x in jax.tree.leaves(latents)]
    total = sum(jnp.sum(jnp.var(x, axis=0)) for x in leaves)
    return jnp.asarray(total / sum(x[0].size for x in leaves))


def output_distance(a: Outputs, b: Outputs, loss_mask: Bool[Array, "..."]) -> PerImage:
    """[B] mean squared difference of the outputs of each example where loss_mask is True.

    a, b: [B, ...]; loss_mask broadcasts to them. 0 for an example without a True value.
    """
    loss_mask = jnp.broadcast_to(loss_mask, a.shape)
    squares = jnp.where(loss_mask, (a.astype(jnp.float32) - b.astype(jnp.float32)) ** 2, 0.0)
    axes = tuple(range(1, a.ndim))
    return jnp.sum(squares, axes) / jnp.maximum(jnp.sum(loss_mask, axes), 1)


def training_loss(
    model: ImageToImage, params: Params, batch: Batch, rng: Rng
) -> tuple[Scalar, Metrics]:
    """Corrupts the batch and returns (training loss of the model, its metrics)."""
    inputs = model.corrupt(params, batch.images, batch.mask, rng, visible=batch.visible)
    return model.training_loss(params, inputs)
