"""Whether a small change of the visible pixels brings the forgotten back.

Projected gradient descent moves every visible pixel by at most 8/255, so that the model's loss on
the hidden pixels falls; the hidden pixels and the targets stay as they are. Random draws of the
model are new in every step. The attack on each image knows what is hidden: through many steps it
can paint the answer itself, for any model, so only the difference to the retrained model says
something. The universal attack cannot: one change for all images is made on the images to forget
and tried on unseen ones.

The loss is the model's own, where it counts hidden pixels only. A model whose loss counts visible
pixels, too, is attacked through the squared error of its hidden pixels. For a diffusion model the
loss is that of one random noise level. A model that turns pixels into tokens first has no gradient
to its pixels and is refused. Source: UnlearnDiffAtk (arXiv 2310.11868), where the change is one of
the prompt.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from l2l_jax.lib import per_image, pixels
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.placement import Compared
from l2l_jax.types import (
    AuditFigure,
    Batch,
    Bounds,
    Findings,
    Images,
    ImageToImage,
    Params,
    PerImage,
    Rng,
    Subject,
    TokenModel,
)

TITLE = "Does a small change of the visible part bring it back?"
FIGURES = (AuditFigure("psnr", "PSNR of forget images", "dB", 2),)
SETS = ("forget_train", "forgotten")
ATTACKS = True
COST = "50 gradients for every image of two sets"
BOUNDS = {"steps": Bounds(1, 10_000), "size": Bounds(0, 1), "step_size": Bounds(0, 1)}


def refuses(model: ImageToImage) -> str:
    """Why it cannot take a model; "" if it can."""
    if isinstance(model, TokenModel) and model.takes_tokens:
        return "the model reads tokens: what it is shown has no gradient to the pixels"
    return ""


def audit(
    subject: Subject, *, steps: int = 50, size: float = 8 / 255, step_size: float = 2 / 255
) -> Findings:
    """size: how far a pixel may move, of 1. step_size: how far it moves in a step."""
    images = subject.sets["forgotten"]
    how: dict[str, Any] = dict(steps=steps, size=size, step_size=step_size)
    values = subject.measure(attacked, images, **how)
    yield subject.estimate("psnr", np.mean, values, at={"attack": "each image"})
    change = universal(subject, **how)
    values = subject.measure(changed, images, given=change)
    yield subject.estimate("psnr", np.mean, values, at={"attack": "universal"})
    values = subject.measure(per_image.psnr, images)
    yield subject.estimate("psnr", np.mean, values, at={"attack": "none"})


def attacked(
    model: ImageToImage,
    params: Params,
    batch: Batch,
    rng: Rng,
    *,
    steps: int,
    size: float,
    step_size: float,
) -> PerImage:
    """PSNR of each image after an attack of its own."""

    def step(at: Array, change: Images) -> Images:
        slope = slopes(model, params, batch, rngs.fold(rng, "attack", at), change)
        return jnp.clip(change - step_size * jnp.sign(slope), -size, size)

    change = jax.lax.fori_loop(0, steps, step, jnp.zeros_like(batch.images))
    return changed(model, params, batch, rng, given=change)


def changed(
    model: ImageToImage, params: Params, batch: Batch, rng: Rng, *, given: Float[Array, "..."]
) -> PerImage:
    """PSNR of each image after a given change of its visible pixels."""
    made = model.reconstruct(params, shown(model, batch, given), batch.mask, rng, batch.visible)
    return per_image.psnr_of(made, batch.images, batch.mask)


def gradients(
    model: ImageToImage, params: Params, batch: Batch, rng: Rng, *, given: Float[Array, "H W 3"]
) -> Images:
    """The gradient of each image's loss by one change of all of them."""
    change = jnp.broadcast_to(given, batch.images.shape)
    return slopes(model, params, batch, rng, change)


def universal(
    subject: Subject, *, steps: int, size: float, step_size: float
) -> Float[np.ndarray, "H W 3"]:
    """The change [H, W, 3] that lowers the loss of all images to forget."""
    images = subject.sets["forget_train"]
    change = np.zeros(images.images.shape[1:], np.float32)
    for step in range(steps):
        slope = subject.measure(gradients, images, draw=step, given=change)
        change = change - np.float32(step_size) * np.sign(slope.sum(axis=0), dtype=np.float32)
        change = np.clip(change, -size, size).astype(np.float32)
    return change


def slopes(model: ImageToImage, params: Params, batch: Batch, rng: Rng, change: Images) -> Images:
    """The gradient of the loss by what the model is shown; 0 on hidden pixels."""

    def total(images: Images) -> Array:
        return jnp.sum(hidden_loss(model, params, batch, rng, images))

    # By the clipped pixels: a change beyond black or white would have no gradient to come back.
    slope = jax.grad(total)(shown(model, batch, change))
    return jnp.where(pixels.hidden_pixels(batch.mask, model.image_size), 0.0, slope)


def shown(model: ImageToImage, batch: Batch, change: Array) -> Images:
    """The images with the change of their visible pixels, in [0, 1]."""
    hidden = pixels.hidden_pixels(batch.mask, model.image_size)
    return jnp.where(hidden, batch.images, jnp.clip(batch.images + change, 0.0, 1.0))


def hidden_loss(
    model: ImageToImage, params: Params, batch: Batch, rng: Rng, images: Images
) -> PerImage:
    """[B] the loss on hidden pixels when the model is shown these images."""
    inputs = model.corrupt(
        params, images, batch.mask, rng, targets=batch.images, visible=batch.visible
    )
    if model.loss_mask(inputs).size > len(images):  # it tells hidden from visible
        return model.loss(params, inputs)
    outputs = model.decode(params, model.encode(params, inputs), inputs)
    return per_image.hidden_mean((outputs - batch.images) ** 2, batch.mask)


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    plain = compared.value("unlearned", "psnr", attack="none")
    own, universal = (
        compared.value("unlearned", "psnr", attack=name) - plain
        for name in ("each image", "universal")
    )
    return (
        f"A change of the visible pixels changes the completions of forget images by {own:+.2f} "
        f"dB if made for each image, by {universal:+.2f} dB if one for all."
    )
