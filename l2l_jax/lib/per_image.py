"""What audits measure of each image: functions of module level for Subject.measure."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from l2l_jax.lib import pixels
from l2l_jax.types import (
    Activations,
    Batch,
    Images,
    ImageSet,
    ImageToImage,
    Inputs,
    Mask,
    Params,
    PerImage,
    Rng,
    Subject,
)


def corrupted(model: ImageToImage, params: Params, batch: Batch, rng: Rng) -> Inputs:
    """The inputs of the encoder for a batch."""
    return model.corrupt(params, batch.images, batch.mask, rng, visible=batch.visible)


def loss(model: ImageToImage, params: Params, batch: Batch, rng: Rng) -> PerImage:
    """The model's own training loss."""
    return model.loss(params, corrupted(model, params, batch, rng))


def completed(model: ImageToImage, params: Params, batch: Batch, rng: Rng) -> Images:
    """The completed images."""
    return model.reconstruct(params, batch.images, batch.mask, rng, batch.visible)


def psnr(model: ImageToImage, params: Params, batch: Batch, rng: Rng) -> PerImage:
    """PSNR of the completion on hidden pixels, in dB, peak value 1."""
    return psnr_of(completed(model, params, batch, rng), batch.images, batch.mask)


def psnr_of(made: Images, real: Images, mask: Mask) -> PerImage:
    """PSNR on hidden pixels, in dB, peak value 1; made is rounded as a saved picture is."""
    shown = jnp.round(made * 255) / 255
    mse = hidden_mean((shown - real) ** 2, mask)
    return -10 * jnp.log10(jnp.maximum(mse, pixels.SMALLEST_ERROR))


def hidden_mean(values: Images, mask: Mask) -> PerImage:
    """The mean over the hidden pixels."""
    hidden = pixels.hidden_pixels(mask, values.shape[1])
    count = jnp.maximum(values.shape[-1] * jnp.sum(hidden, axis=(1, 2, 3)), 1)
    return jnp.sum(jnp.where(hidden, values, 0.0), axis=(1, 2, 3)) / count


def activations(model: ImageToImage, params: Params, batch: Batch, rng: Rng) -> Activations:
    """What every block returns, averaged over positions."""
    return model.activations(params, corrupted(model, params, batch, rng))


def block_number(name: str) -> int:
    """The number of a block: 3 of "encoder.3"."""
    return int(name.rpartition(".")[2])


def encoder_end(model: ImageToImage, params: Params, batch: Batch, rng: Rng) -> Float[Array, "B D"]:
    """What the last block of the encoder returns, averaged over positions."""
    found = activations(model, params, batch, rng)
    names = [name for name in found if name.startswith("encoder.")]
    return found[max(names, key=block_number)]


def hidden_colours(
    model: ImageToImage, params: Params, batch: Batch, rng: Rng
) -> Float[Array, "B D"]:
    """The colours of the hole on a grid of 4 x 4, and of the mean pixel of each cell: [B, 48]."""
    del params, rng
    return colours_of(batch.images, batch.mask, model.image_size)


def completed_colours(
    model: ImageToImage, params: Params, batch: Batch, rng: Rng
) -> Float[Array, "B D"]:
    """The same colours of the completion."""
    return colours_of(completed(model, params, batch, rng), batch.mask, model.image_size)


def colours_of(images: Images, mask: Mask, image_size: int) -> Float[Array, "B D"]:
    """The mean colour of the hidden pixels in each of 4 x 4 parts of the images; 0 without any."""
    hidden = pixels.hidden_pixels(mask, image_size)
    side = image_size // 4
    cells = jnp.where(hidden, images, 0.0).reshape(-1, 4, side, 4, side, 3)
    counts = hidden.astype(jnp.float32).reshape(-1, 4, side, 4, side, 1).sum((2, 4))
    return (cells.sum((2, 4)) / jnp.maximum(counts, 1)).reshape(len(images), -1)


def hidden(model: ImageToImage, params: Params, batch: Batch, rng: Rng) -> Bool[Array, "B H W 1"]:
    """True for the hidden pixels."""
    del params, rng
    return pixels.hidden_pixels(batch.mask, model.image_size)


def mean_loss(
    subject: Subject, images: ImageSet, draws: int, params: Params | None = None
) -> Float[np.ndarray, " N"]:
    """The mean loss of each image under so many masks, as many of each training task."""
    tasks = subject.training_tasks
    found = [
        subject.measure(loss, images, params=params, task=tasks[draw % len(tasks)], draw=draw)
        for draw in range(draws)
    ]
    return np.mean(found, axis=0)
