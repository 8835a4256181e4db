"""A small convolutional autoencoder that completes images, for CIFAR-10 (32x32 pixels).

T  fill the hidden cells with grey
E  convolutions of stride 2 to a map of latents, one for every 2^n x 2^n pixels
D  the reverse: convolutions, each followed by doubling the side with nearest neighbours

loss = mean |x' - x|^2 over all pixels, visible ones too                          for every image

The setting is that of Varshney and Torra, "Realistic I2I Machine Unlearning via Decoupling and
Knowledge Retention" (arXiv 2502.04260), who compare unlearned with retrained models on CIFAR-10
with "a simple AutoEncoder". Its architecture, training and masks are not published: layers, widths
and grid are our choice. Every layer is a 3x3 convolution, GroupNorm and SiLU; latents and pixels
are the outputs of plain convolutions. There is no skip connection between E and D, so the whole
image passes through the latents that unlearning moves.

Masks are drawn on cells of `cell` x `cell` pixels, independent of the strides; a mask may be finer.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.precision import compute_dtype
from l2l_jax.lib.sharding import split_rows
from l2l_jax.models.layers.base import (
    FilledImages,
    FillingModel,
    check_divides,
    check_groups,
    choose_size,
    mean_map,
    named_activations,
)
from l2l_jax.models.layers.vit import Dtype
from l2l_jax.types import (
    DEPTH_BOUNDS,
    PIXEL_BOUNDS,
    WIDTH_BOUNDS,
    Activations,
    Array,
    Bounds,
    Images,
    Params,
    PerImage,
)

FILL = 0.5  # value of hidden pixels; 0 after normalisation, like the padding of the convolutions
EPSILON = 1e-5  # of GroupNorm, as in PyTorch


@dataclasses.dataclass(frozen=True)
class Size:
    """Dimensions. Each level halves the side; `blocks` more layers follow at the deepest level."""

    widths: tuple[int, ...]  # channels of each level
    blocks: int
    latent: int  # channels of the latent map
    groups: int  # of every GroupNorm


SIZES = {
    "small": Size((16, 64, 128), 1, 64, 8),  # a 32x32 image passes through 4x4x64 numbers
    "test": Size((8, 8), 1, 4, 4),
}
SMALLEST = dict(size="test", image_size=16)
BOUNDS = {
    "image_size": PIXEL_BOUNDS,
    "cell": PIXEL_BOUNDS,
    "widths": Bounds(1, WIDTH_BOUNDS.high),
    "blocks": DEPTH_BOUNDS,
    "latent": WIDTH_BOUNDS,
    "groups": WIDTH_BOUNDS,
}
Inputs = FilledImages
Maps = Float[Array, "B h w C"]


def _conv(inner: int, outer: int, stride: int, dtype: Dtype, rngs: nnx.Rngs) -> nnx.Conv:
    """A 3x3 convolution, padded by one pixel on each side as in PyTorch (unlike "SAME")."""
    padding = ((1, 1), (1, 1))
    return nnx.Conv(inner, outer, (3, 3), strides=stride, padding=padding, dtype=dtype, rngs=rngs)


class Layer(nnx.Module):
    """Convolution, GroupNorm, SiLU."""

    def __init__(
        self, inner: int, outer: int, stride: int, groups: int, dtype: Dtype, rngs: nnx.Rngs
    ):
        self.conv = _conv(inner, outer, stride, dtype, rngs)
        self.norm = nnx.GroupNorm(outer, groups, epsilon=EPSILON, dtype=dtype, rngs=rngs)

    def __call__(self, x: Maps) -> Float[Array, "B _ _ _"]:
        return split_rows(jax.nn.silu(self.norm(self.conv(split_rows(x)))))


class Encoder(nnx.Module):
    """[B, H, W, 3] in [0, 1] -> [B, h, w, latent] float32."""

    def __init__(self, size: Size, dtype: Dtype, rngs: nnx.Rngs):
        pairs, deepest = itertools.pairwise((3, *size.widths)), size.widths[-1]
        self.down = nnx.List([Layer(a, b, 2, size.groups, dtype, rngs) for a, b in pairs])
        middle = range(size.blocks)
        self.middle = nnx.List(
            [Layer(deepest, deepest, 1, size.groups, dtype, rngs) for _ in middle]
        )
        self.out = _conv(deepest, size.latent, 1, dtype, rngs)

    def __call__(self, images: Images) -> Maps:
        return self.out(self.maps(images)[-1]).astype(jnp.float32)

    def maps(self, images: Images) -> list[Float[Array, "B _ _ _"]]:
        """What every layer but the last returns."""
        layers, x = (*self.down, *self.middle), (images - 0.5) / 0.5
        return list(itertools.accumulate(layers, lambda x, layer: layer(x), initial=x))[1:]


class Decoder(nnx.Module):
    """[B, h, w, latent] -> [B, H, W, 3] float32 around [0, 1]."""

    def __init__(self, size: Size, dtype: Dtype, rngs: nnx.Rngs):
        widths = [*reversed(size.widths), size.widths[0]]
        self.middle = nnx.List([])
        for inner in (size.latent, *[widths[0]] * size.blocks):
            self.middle.append(Layer(inner, widths[0], 1, size.groups, dtype, rngs))
        pairs = itertools.pairwise(widths)
        self.up = nnx.List([Layer(a, b, 1, size.groups, dtype, rngs) for a, b in pairs])
        self.out = _conv(widths[-1], 3, 1, dtype, rngs)

    def __call__(self, latents: Maps) -> Images:
        return 0.5 + 0.5 * self.out(self.maps(latents)[-1]).astype(jnp.float32)

    def maps(self, latents: Maps) -> list[Float[Array, "B _ _ _"]]:
        """What every layer but the last returns."""
        maps, x = [], latents
        for layer in self.middle:
            x = layer(x)
            maps.append(x)
        for layer in self.up:
            x = layer(x).repeat(2, axis=1).repeat(2, axis=2)
            maps.append(x)
        return maps


@dataclasses.dataclass(frozen=True)
class Autoencoder(FillingModel):
    """The model as `ImageToImage`. Groups: encoder, decoder."""

    size: Size
    image_size: int
    cell: int
    dtype: Dtype
    fill = FILL

    @property
    def grid(self) -> tuple[int, int]:
        side = self.image_size // self.cell
        return side, side

    @property
    def identity(self) -> dict[str, Any]:
        """The dimensions; image size and cell are not part of it: convolutions fit any."""
        return dataclasses.asdict(self.size)

    def make_encoder(self, rngs: nnx.Rngs) -> Encoder:
        return Encoder(self.size, self.dtype, rngs)

    def make_decoder(self, rngs: nnx.Rngs) -> Decoder:
        return Decoder(self.size, self.dtype, rngs)

    def encode(self, params: Params, inputs: Inputs) -> Maps:
        """[B, h, w, C] float32."""
        return self.encoder.bind(params["encoder"])(inputs.images)

    def decode(self, params: Params, latents: Maps, inputs: Inputs) -> Images:
        """[B, H, W, 3] float32 around [0, 1]."""
        del inputs
        return self.decoder.bind(params["decoder"])(latents)

    def activations(self, params: Params, inputs: Inputs) -> Activations:
        encoder = self.encoder.bind(params["encoder"])
        maps = encoder.maps(inputs.images)
        latents = encoder.out(maps[-1]).astype(jnp.float32)
        decoded = self.decoder.bind(params["decoder"]).maps(latents)
        return named_activations([mean_map(x) for x in maps], [mean_map(x) for x in decoded])

    def loss(self, params: Params, inputs: Inputs) -> PerImage:
        """[B] mean squared error of all pixels."""
        error = jnp.square(self.predict(params, inputs) - inputs.target)
        return jnp.mean(error, axis=(1, 2, 3))


def build(
    *,
    size: str = "small",
    image_size: int = 32,
    cell: int = 4,
    dtype: str = "auto",
    widths: Sequence[int] = (),
    blocks: int = 0,
    latent: int = 0,
    groups: int = 0,
) -> Autoencoder:
    """Builds a named size; any dimension can be overridden (0 or () keeps its value).

    cell: side in pixels of the cells that masks are drawn on. dtype is that of the computation:
    "float32", "bfloat16", or "auto" (bfloat16 on accelerators). ConfigError for dimensions that do
    not divide.
    """
    dimensions = dict(widths=tuple(widths), blocks=blocks, latent=latent, groups=groups)
    chosen = choose_size("autoencoder", SIZES, size, **dimensions)
    if min(*chosen.widths, chosen.blocks, chosen.latent, chosen.groups) < 1:
        raise ConfigError(f"The dimensions of an autoencoder must be positive, not {chosen}.")
    levels = len(chosen.widths)
    change = ", or change model.args."
    check_divides(image_size, 1 << levels, f"halved {levels} times", advice=f"{change}widths")
    check_divides(image_size, cell, f"cut into cells of {cell} pixels", advice=f"{change}cell")
    check_groups(chosen.widths, chosen.groups, "model.args.widths or groups")
    return Autoencoder(chosen, image_size, cell, compute_dtype(dtype))
