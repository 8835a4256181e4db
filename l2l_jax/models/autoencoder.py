"""A small convolutional autoencoder that completes images, for CIFAR-10 (32x32 pixels).

T  fill the hidden cells with grey
E  convolutions of stride 2 to a map of latents, one for every 2^n x 2^n pixels
D  the mirror image: convolutions, each followed by doubling the side with nearest neighbours

loss = mean |x' - x|^2 over all pixels, visible ones too                          for every example

The setting is that of Varshney and Torra, "Realistic I2I Machine Unlearning via Decoupling and
Knowledge Retention" (arXiv 2502.04260), who compare unlearned with retrained models on CIFAR-10
with "a simple AutoEncoder". Of its architecture, training and masks nothing is published: layers,
widths and grid here are ours. Every layer is a 3x3 convolution, GroupNorm and SiLU; the latents and
the pixels come out of plain convolutions. There is no skip connection between E and D, so that all
of an image passes through the latents that unlearning moves.

The grid of masks is that of `cell` x `cell` pixels, whatever the strides; a mask may be finer.
"""

import dataclasses
import functools
import itertools

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from l2l_jax.lib import pixels
from l2l_jax.lib.errors import ConfigError, unknown
from l2l_jax.lib.nnx_pure import Pure
from l2l_jax.lib.precision import compute_dtype
from l2l_jax.models.layers.vit import Dtype
from l2l_jax.types import Array, Metrics, Params

FILL = 0.5  # what stands in a hole; 0 after normalisation, like the padding of the convolutions
EPSILON = 1e-5  # of GroupNorm, as in PyTorch


@dataclasses.dataclass(frozen=True)
class Size:
    """Channels of each level, the side halves at every one; then `blocks` layers at the deepest."""

    widths: tuple[int, ...]
    blocks: int
    latent: int  # channels of the latent map
    groups: int  # of every GroupNorm


SIZES = {
    "small": Size((16, 64, 128), 1, 64, 8),  # a 32x32 image passes through 4x4x64 numbers
    "test": Size((8, 8), 1, 4, 4),
}
SMALLEST = dict(size="test", image_size=16)  # what tests build


@flax.struct.dataclass
class Inputs:
    """What T makes."""

    images: Array  # [B, H, W, 3] in [0, 1], the hole filled
    target: Array  # [B, H, W, 3] in [0, 1]


def _conv(inner: int, outer: int, stride: int, dtype: Dtype, rngs: nnx.Rngs) -> nnx.Conv:
    """3x3, padded by one pixel on each side as in PyTorch ("SAME" would not be, with a stride)."""
    padding = ((1, 1), (1, 1))
    return nnx.Conv(inner, outer, (3, 3), strides=stride, padding=padding, dtype=dtype, rngs=rngs)


class Layer(nnx.Module):
    """Convolution, GroupNorm, SiLU."""

    def __init__(
        self, inner: int, outer: int, stride: int, groups: int, dtype: Dtype, rngs: nnx.Rngs
    ):
        self.conv = _conv(inner, outer, stride, dtype, rngs)
        self.norm = nnx.GroupNorm(outer, groups, epsilon=EPSILON, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return jax.nn.silu(self.norm(self.conv(x)))


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

    def __call__(self, images: Array) -> Array:
        x = (images - 0.5) / 0.5
        for layer in (*self.down, *self.middle):
            x = layer(x)
        return self.out(x).astype(jnp.float32)


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

    def __call__(self, latents: Array) -> Array:
        x = latents
        for layer in self.middle:
            x = layer(x)
        for layer in self.up:
            x = layer(x).repeat(2, axis=1).repeat(2, axis=2)
        return 0.5 + 0.5 * self.out(x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """The model as `ImageToImage`. Groups: encoder, decoder."""

    size: Size
    image_size: int
    cell: int
    dtype: Dtype
    takes_tokens = False
    shows_hidden = False
    sampling = "one pass"

    @property
    def grid(self) -> tuple[int, int]:
        return (self.image_size // self.cell,) * 2

    @property
    def identity(self) -> dict[str, object]:
        """What weights belong to. Image size and cell are not in it: convolutions take any."""
        return dataclasses.asdict(self.size)

    def inferred_args(self, params: Params) -> dict[str, object]:
        """What parameters tell by themselves of `identity`: nothing."""
        del params
        return {}

    def tokenize(self, params: Params, images: Array) -> Array:
        """The images themselves: this is a model of pixels."""
        del params
        return images

    @functools.cached_property
    def encoder(self) -> Pure:
        return Pure(lambda rngs: Encoder(self.size, self.dtype, rngs))

    @functools.cached_property
    def decoder(self) -> Pure:
        return Pure(lambda rngs: Decoder(self.size, self.dtype, rngs))

    @functools.cached_property
    def template(self) -> Params:
        return jax.eval_shape(self.init, jax.random.key(0))

    @property
    def canonical(self) -> Params:
        return self.template

    def init(self, rng: Array) -> Params:
        encoder, decoder = jax.random.split(rng)
        return {"encoder": self.encoder.init(encoder), "decoder": self.decoder.init(decoder)}

    def corrupt(
        self,
        params: Params,
        images: Array,
        mask: Array,
        rng: Array,
        targets: Array | None = None,
        visible: tuple[int, int] | None = None,
    ) -> Inputs:
        """Fills the hidden cells."""
        del params, rng, visible  # nothing in this T is learned, random, or cheaper if known
        filled = jnp.where(pixels.hidden(mask, self.image_size), FILL, images)
        return Inputs(filled, images if targets is None else targets)

    def encode(self, params: Params, inputs: Inputs) -> Array:
        """[B, h, w, C] float32."""
        return self.encoder.bind(params["encoder"])(inputs.images)

    def decode(self, params: Params, latents: Array, inputs: Inputs) -> Array:
        """[B, H, W, 3] float32 around [0, 1]."""
        del inputs
        return self.decoder.bind(params["decoder"])(latents)

    def loss_mask(self, inputs: Inputs) -> Array:
        """All pixels."""
        return jnp.ones((len(inputs.images), 1, 1, 1), bool)

    def loss(self, params: Params, inputs: Inputs) -> Array:
        """[B] mean squared error of all pixels."""
        made = self.decode(params, self.encode(params, inputs), inputs)
        return jnp.mean(jnp.square(made - inputs.target), axis=(1, 2, 3))

    def training_loss(self, params: Params, inputs: Inputs) -> tuple[Array, Metrics]:
        """Mean of `loss`."""
        return jnp.mean(self.loss(params, inputs)), {}

    def reconstruct(
        self,
        params: Params,
        images: Array,
        mask: Array,
        rng: Array,
        visible: tuple[int, int] | None = None,
    ) -> Array:
        """Decoded pixels where hidden, the given ones elsewhere; [B, H, W, 3] in [0, 1]."""
        inputs = self.corrupt(params, images, mask, rng, visible=visible)
        made = self.decode(params, self.encode(params, inputs), inputs)
        return pixels.paste(images, made, mask)


def build(
    *,
    size: str = "small",
    image_size: int = 32,
    cell: int = 4,
    dtype: str = "auto",
    widths: tuple[int, ...] = (),
    blocks: int = 0,
    latent: int = 0,
    groups: int = 0,
) -> Autoencoder:
    """An autoencoder of a known size, any number of which (0 or () = as known) can be changed.

    cell: side in pixels of the cells that masks are drawn on. dtype is that of the computation:
    "float32", "bfloat16", or "auto" (bfloat16 on accelerators). ConfigError for what does not
    divide.
    """
    if size not in SIZES:
        raise unknown("autoencoder size", size, SIZES)
    given = dict(widths=tuple(widths), blocks=blocks, latent=latent, groups=groups)
    chosen = dataclasses.replace(SIZES[size], **{k: v for k, v in given.items() if v})
    if min(*chosen.widths, chosen.blocks, chosen.latent, chosen.groups) < 1:
        raise ConfigError(f"The numbers of an autoencoder must be positive, not {chosen}.")
    shrunk = 1 << len(chosen.widths)
    _check_divides(image_size, shrunk, f"halved {len(chosen.widths)} times", "widths")
    _check_divides(image_size, cell, f"cut into cells of {cell} pixels", "cell")
    if bad := [width for width in chosen.widths if width % chosen.groups]:
        raise ConfigError(
            f"Widths {bad} cannot be split into {chosen.groups} groups; change model.args.widths "
            "or groups."
        )
    return Autoencoder(chosen, image_size, cell, compute_dtype(dtype))


def _check_divides(image_size: int, part: int, how: str, culprit: str) -> None:
    if part < 1 or image_size < part or image_size % part:
        part = max(part, 1)
        near = max(image_size - image_size % part, part)
        raise ConfigError(
            f"An image of {image_size} pixels cannot be {how}; try image_size={near} or "
            f"{near + part}, or change model.args.{culprit}."
        )
