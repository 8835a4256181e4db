"""Example model: a linear autoencoder of patches.

T  fill the hidden cells with grey
E  one linear map of every patch of `cell` x `cell` pixels
D  one linear map back

loss = mean |x' - x|^2 over all pixels                                             for every example
"""

import dataclasses

import flax.struct
from l2l_jax.models.layers.base import PixelModel

from l2l_jax.types import Array

SMALLEST = dict(image_size=16, width=8)


@flax.struct.dataclass
class Inputs:
    """What T returns."""

    images: Array  # [B, H, W, 3] in [0, 1], the hole filled
    target: Array  # [B, H, W, 3] in [0, 1]


@dataclasses.dataclass(frozen=True)
class Linear(PixelModel):
    """The model as `ImageToImage`. Groups: encoder, decoder."""
