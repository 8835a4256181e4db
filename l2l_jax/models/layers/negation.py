"""The safe denoiser: sampling that is steered away from stored images (Kim et al., 2025).

    E_u    = sum_i w_i a_i          w_i = q(y_t|a_i) / sum_j q(y_t|a_j)    over the stored images
    x_safe = x + beta (x - E_u)     x = (y_t - sqrt(1 - gamma) e) / sqrt(gamma), the model's image

The image that a model expects behind y_t is a mixture of what it expects among safe and among
unsafe images; solved for the safe part this is the second line, with beta the odds that y_t stems
from an unsafe image. q(.|a) is the distribution of a with noise added.

Source: "Training-Free Safe Denoisers for Safe Use of Diffusion Models", arXiv 2502.08011: the
equation. How the paper approximates beta, and in which steps it applies it, could not be read. Here

    beta = strength exp(-|x - E_u|^2 / (2 width^2))        a mean square over the hole, in [-1, 1]

so that only what resembles stored images is pushed, in every step. strength = 1 and width = 0.25
are our choices, and untuned. No weight of the network changes.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from l2l_jax.models.layers.denoising import Predict
from l2l_jax.models.layers.unet import Hole
from l2l_jax.types import Images, Params, Scalar

GROUP = "negation"  # the parameter group that holds the images
ARRAYS = ("images", "weight")  # of the group


@dataclasses.dataclass(frozen=True)
class Negation:
    """How many images are stored, and how sampling avoids them."""

    count: int  # 0: sampling as usual
    strength: int | float = 1.0
    width: int | float = 0.25

    def empty(self, size: int) -> Params:
        """{GROUP: no image yet}, or {} if none is stored; images in [0, 1], weights 0 or 1."""
        shape = (self.count, size, size, 3)
        group = {"images": jnp.zeros(shape), "weight": jnp.zeros(self.count)}
        return {GROUP: group} if self.count else {}

    def steered(self, predict: Predict, params: Params, hidden: Hole) -> Predict:
        """`predict` as it is, or steered away from the images that params store."""
        if not self.count:
            return predict
        stored, weight = params[GROUP]["images"] * 2 - 1, params[GROUP]["weight"]

        def safe(noisy: Images, gamma: Scalar) -> Images:
            signal = jnp.maximum(jnp.sqrt(gamma), 1e-6)
            noise = jnp.sqrt(jnp.maximum(1 - gamma, 1e-12))
            image = jnp.clip((noisy - noise * predict(noisy, gamma)) / signal, -1.0, 1.0)
            near = unsafe(noisy, stored, weight, hidden, signal, noise)
            gap = jnp.where(hidden, image - near, 0.0)
            count = jnp.maximum(3 * jnp.sum(hidden, axis=(1, 2, 3), keepdims=True), 1)
            far = jnp.sum(gap**2, axis=(1, 2, 3), keepdims=True) / count
            beta = self.strength * jnp.exp(-far / (2 * self.width**2)) * jnp.any(weight > 0)
            return (noisy - signal * (image + beta * gap)) / noise

        return safe


def unsafe(
    noisy: Images,
    stored: Float[Array, "N H W 3"],
    weight: Float[Array, " N"],
    hidden: Hole,
    signal: Scalar,
    noise: Scalar,
) -> Images:
    """E_u: [B, H, W, 3], the stored image that is expected behind y_t. weight: 0 = not stored."""
    seen = jnp.where(hidden, noisy, 0.0)
    mask = jnp.broadcast_to(hidden, noisy.shape).astype(jnp.float32)
    products = jnp.einsum("bhwc,nhwc->bn", seen, stored)
    squares = jnp.einsum("bhwc,nhwc->bn", mask, stored**2)
    likelihood = -(signal**2 * squares - 2 * signal * products) / (2 * noise**2)
    w = jax.nn.softmax(jnp.where(weight > 0, likelihood, -1e30), axis=1)
    return jnp.einsum("bn,nhwc->bhwc", w, stored)
