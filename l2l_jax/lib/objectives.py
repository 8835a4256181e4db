"""Terms that methods build their objectives from: distances and a model's own training loss."""

import jax
import jax.numpy as jnp

from l2l_jax.types import Array, Batch, ImageToImage, Latents, Metrics, Outputs, Params


def latent_distance(a: Latents, b: Latents, relative: bool = False) -> Array:
    """Mean squared difference, float32; summed over the arrays of a pytree (feature maps).

    relative: of each array in units of the mean square of b's, the goal's.
    """

    def mean(x: Array, y: Array) -> Array:
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)
        unit = jax.lax.stop_gradient(jnp.mean(y**2)) + 1e-12 if relative else 1.0
        return jnp.mean((x - y) ** 2) / unit

    return sum(jax.tree.leaves(jax.tree.map(mean, a, b)))


def output_distance(a: Outputs, b: Outputs, asked: Array) -> Array:
    """[B] mean squared difference of each example's values, of those that are asked for.

    a, b: [B, ...]; asked: bool, broadcasts to them. 0 where nothing is asked for.
    """
    asked = jnp.broadcast_to(asked, a.shape)
    squares = jnp.where(asked, (a.astype(jnp.float32) - b.astype(jnp.float32)) ** 2, 0.0)
    values = tuple(range(1, a.ndim))
    return jnp.sum(squares, values) / jnp.maximum(jnp.sum(asked, values), 1)


def native_loss(
    model: ImageToImage, params: Params, part: Batch, rng: Array
) -> tuple[Array, Metrics]:
    """(what training minimises, scalar; metrics of the model); corrupts once."""
    inputs = model.corrupt(params, part.images, part.mask, rng, visible=part.visible)
    return model.training_loss(params, inputs)
