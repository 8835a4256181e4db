"""A model's own training loss on one side of a batch."""

import jax.numpy as jnp

from l2l_jax.types import Array, Batch, ImageToImage, Params


def native_loss(model: ImageToImage, params: Params, part: Batch, rng: Array) -> Array:
    """Mean over the examples; corrupts once."""
    inputs = model.corrupt(params, part.images, part.mask, rng, visible=part.visible)
    return jnp.mean(model.loss(params, inputs))
