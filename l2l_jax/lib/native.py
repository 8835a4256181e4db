"""A model's own training loss on one side of a batch."""

from l2l_jax.types import Array, Batch, ImageToImage, Metrics, Params


def native_loss(
    model: ImageToImage, params: Params, part: Batch, rng: Array
) -> tuple[Array, Metrics]:
    """(what training minimises, scalar; metrics of the model); corrupts once."""
    inputs = model.corrupt(params, part.images, part.mask, rng, visible=part.visible)
    return model.training_loss(params, inputs)
