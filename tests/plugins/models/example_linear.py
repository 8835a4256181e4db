"""Example model: a linear autoencoder of patches.

T  fill the hidden cells with grey
E  one linear map of every patch of `cell` x `cell` pixels
D  one linear map back

loss = mean |x' - x|^2 over all pixels                                          for every example
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx

from l2l_jax.models.layers.base import (
    FilledImages,
    FillingModel,
    check_divides,
    mean_map,
    named_activations,
)
from l2l_jax.types import Activations, Array, Images, Params, PerImage

SMALLEST = dict(image_size=16, width=8)


@dataclasses.dataclass(frozen=True)
class Linear(FillingModel):
    """The model as `ImageToImage`. Groups: encoder, decoder."""

    image_size: int
    cell: int
    width: int
    fill: ClassVar[float] = 0.5

    @property
    def grid(self) -> tuple[int, int]:
        return (self.image_size // self.cell,) * 2

    @property
    def identity(self) -> dict[str, object]:
        return {"cell": self.cell, "width": self.width}

    def make_encoder(self, rngs: nnx.Rngs) -> nnx.Module:
        return nnx.Linear(3 * self.cell**2, self.width, rngs=rngs)

    def make_decoder(self, rngs: nnx.Rngs) -> nnx.Module:
        return nnx.Linear(self.width, 3 * self.cell**2, rngs=rngs)

    def encode(self, params: Params, inputs: FilledImages) -> Array:
        """[B, h, w, width] float32."""
        (h, w), c, batch = self.grid, self.cell, inputs.images.shape[0]
        patches = inputs.images.reshape(batch, h, c, w, c, 3).swapaxes(2, 3)
        return self.encoder.bind(params["encoder"])(patches.reshape(batch, h, w, 3 * c * c))

    def decode(self, params: Params, latents: Array, inputs: FilledImages) -> Images:
        """[B, H, W, 3] float32."""
        (h, w), c, batch = self.grid, self.cell, latents.shape[0]
        patches = self.decoder.bind(params["decoder"])(latents).reshape(batch, h, w, c, c, 3)
        return patches.swapaxes(2, 3).reshape(batch, h * c, w * c, 3)

    def activations(self, params: Params, inputs: FilledImages) -> Activations:
        """The mean latent: E and D have one block each, and D returns pixels."""
        return named_activations([mean_map(self.encode(params, inputs))], [])

    def loss(self, params: Params, inputs: FilledImages) -> PerImage:
        """[B] mean squared error over all pixels."""
        return jnp.mean((self.predict(params, inputs) - inputs.target) ** 2, axis=(1, 2, 3))


def build(*, image_size: int = 32, cell: int = 4, width: int = 16) -> Linear:
    """A linear autoencoder; ConfigError if cells of `cell` pixels do not divide the image."""
    check_divides(image_size, cell, f"cut into cells of {cell} pixels")
    return Linear(image_size, cell, width)
