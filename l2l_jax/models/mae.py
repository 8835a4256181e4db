"""Masked autoencoder (He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022).

T  cut the image into patches and drop the hidden ones
E  embed the visible patches, add fixed sine-cosine positions, prepend a class token, run a ViT
D  put a mask token at every hidden position, run a smaller ViT, predict the pixels of each patch

loss = mean over hidden patches of |prediction - patch|^2 / (3 p^2)

Pixels are normalised with the ImageNet mean and standard deviation. With `norm_pix` the target is
each patch normalised by its own mean and variance: this gives better features, but such a model
cannot complete an image, since the statistics of a hidden patch are unknown. The released files
named `mae_visualize_*` predict plain pixels, those named `mae_pretrain_*_full` normalised ones.

Released quirks kept: the class token runs through the decoder and is then dropped; the variance in
`norm_pix` is unbiased with 1e-6 under the root; no dropout anywhere.
"""

import dataclasses
from typing import Any, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float

from l2l_jax.lib import pixels
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.precision import compute_dtype
from l2l_jax.lib.sharding import whole
from l2l_jax.models.layers import positions, vit
from l2l_jax.models.layers.base import (
    Model,
    check_divides,
    choose_size,
    masked_mean,
    named_activations,
)
from l2l_jax.models.layers.permute import permuted
from l2l_jax.types import (
    DEPTH_BOUNDS,
    PIXEL_BOUNDS,
    WIDTH_BOUNDS,
    Activations,
    Array,
    Bounds,
    Images,
    Mask,
    Params,
    PerImage,
    Rng,
    Visible,
)

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths, depths and heads of encoder and decoder; patch side in pixels."""

    width: int
    depth: int
    heads: int
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    patch: int = 16


SIZES = {
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
    "huge": Size(1280, 32, 16, patch=14),
    "small": Size(128, 6, 4, 96, 4, 3, patch=4),  # the bundled one, 32x32 images
    "test": Size(16, 2, 2, 16, 1, 2, patch=4),
}
SMALLEST = dict(size="test", image_size=16)
BOUNDS = {
    "image_size": PIXEL_BOUNDS,
    "width": WIDTH_BOUNDS,
    "depth": DEPTH_BOUNDS,
    "heads": WIDTH_BOUNDS,
    "decoder_width": WIDTH_BOUNDS,
    "decoder_depth": DEPTH_BOUNDS,
    "decoder_heads": WIDTH_BOUNDS,
    "patch": Bounds(0, PIXEL_BOUNDS.high),
}

Latents = Float[Array, "B M D"]  # M = 1 + K, class token first
Patches = Float[Array, "B L P"]  # P = p * p * 3 normalised pixels; (row, column, channel) inside
Table = Float[Array | np.ndarray, "N D"]  # N = 1 + L positions, class token first


@no_type_check  # JAX also builds it from objects that are no arrays
@flax.struct.dataclass
class Inputs:
    """What T returns: K of the L = h * w patches enter the encoder."""

    tokens: Array  # [B, K, p * p * 3] normalised visible patches; zeros where not `attend`
    places: Array  # [B, K] int32, their positions in the grid
    restore: Array  # [B, L] int32, rank of every patch: visible patches first, then hidden ones
    attend: Array | None  # [B, K] bool, None if all K are visible
    hidden: Array  # [B, L] bool
    target: Array  # [B, L, p * p * 3] normalised patches to be predicted


class Encoder(nnx.Module):
    """Visible patches -> latents, class token first."""

    def __init__(self, size: Size, dtype: vit.Dtype, scan: bool, remat: bool, rngs: nnx.Rngs):
        self.remat = remat
        self.patch_embed = vit.linear(size.patch**2 * 3, size.width, dtype, rngs)
        self.cls_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 1, size.width)))
        self.blocks = vit.make_blocks(size.depth, size.width, size.heads, dtype, scan, rngs)
        self.norm = nnx.LayerNorm(size.width, epsilon=vit.EPSILON, dtype=dtype, rngs=rngs)

    def embed(self, inputs: Inputs, table: Table) -> Latents:
        """[B, 1 + K, D]: embedded patches with positions, class token first."""
        x = self.patch_embed(inputs.tokens)
        x = x + whole(table)[1:][inputs.places].astype(x.dtype)
        cls = (self.cls_token[...] + table[:1]).astype(x.dtype)
        return jnp.concatenate([jnp.broadcast_to(cls, (x.shape[0], 1, x.shape[2])), x], axis=1)

    def __call__(self, inputs: Inputs, table: Table) -> Latents:
        x, attend = self.embed(inputs, table), self.attended(inputs)
        x = self.norm(vit.apply_blocks(self.blocks, x, attend, self.remat))
        return x if attend is None else jnp.where(attend[..., None], x, 0)

    def attended(self, inputs: Inputs) -> vit.Attend | None:
        """[B, 1 + K] bool, class token first; None if all tokens are attended to."""
        return None if inputs.attend is None else _with_class(inputs.attend)

    def activations(self, inputs: Inputs, table: Table) -> list[Float[Array, "B D"]]:
        """The mean token after each block."""
        x, attend = self.embed(inputs, table), self.attended(inputs)
        return [vit.mean_tokens(x, attend) for x in vit.block_outputs(self.blocks, x, attend)]


class Decoder(nnx.Module):
    """Latents -> [B, L, P] float32, normalised pixels of every patch."""

    def __init__(self, size: Size, dtype: vit.Dtype, scan: bool, remat: bool, rngs: nnx.Rngs):
        self.remat = remat
        width = size.decoder_width
        self.embed = vit.linear(size.width, width, dtype, rngs)
        self.mask_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 1, width)))
        heads, depth = size.decoder_heads, size.decoder_depth
        self.blocks = vit.make_blocks(depth, width, heads, dtype, scan, rngs)
        self.norm = nnx.LayerNorm(width, epsilon=vit.EPSILON, dtype=dtype, rngs=rngs)
        self.pred = vit.linear(width, size.patch**2 * 3, dtype, rngs)

    def fill(
        self, latents: Latents, inputs: Inputs, table: Float[Array | np.ndarray, "N E"]
    ) -> Float[Array, "B N E"]:
        """[B, 1 + L, E]: every patch at its position, the mask token where it is hidden."""
        x = self.embed(latents)
        b, _, d = x.shape
        patches, token = x[:, 1:], self.mask_token[...].astype(x.dtype)
        if inputs.attend is not None:
            patches = jnp.where(inputs.attend[..., None], patches, token)
        missing = inputs.restore.shape[1] - patches.shape[1]
        tokens = jnp.broadcast_to(token, (b, missing, d))
        ranked = jnp.concatenate([patches, tokens], axis=1)
        placed = permuted(ranked, inputs.restore)
        return jnp.concatenate([x[:, :1], placed], axis=1) + table.astype(x.dtype)

    def __call__(
        self, latents: Latents, inputs: Inputs, table: Float[Array | np.ndarray, "N E"]
    ) -> Patches:
        return self.pred(self.features(latents, inputs, table))[:, 1:].astype(jnp.float32)

    def features(
        self, latents: Latents, inputs: Inputs, table: Float[Array | np.ndarray, "N E"]
    ) -> Float[Array, "B N E"]:
        """[B, 1 + L, E]: what the last, linear layer is given."""
        x = vit.apply_blocks(self.blocks, self.fill(latents, inputs, table), remat=self.remat)
        return self.norm(x)

    def activations(
        self, latents: Latents, inputs: Inputs, table: Float[Array | np.ndarray, "N E"]
    ) -> list[Float[Array, "B E"]]:
        """The mean token after each block."""
        outputs = vit.block_outputs(self.blocks, self.fill(latents, inputs, table))
        return [vit.mean_tokens(x) for x in outputs]


@dataclasses.dataclass(frozen=True)
class MAE(Model):
    """The model as `ImageToImage`. Groups: encoder, decoder, positions (never trained)."""

    size: Size
    image_size: int
    norm_pix: bool
    scan: bool
    remat: bool
    dtype: vit.Dtype

    @property
    def grid(self) -> tuple[int, int]:
        side = self.image_size // self.size.patch
        return side, side

    @property
    def identity(self) -> dict[str, Any]:
        """The dimensions, image size and norm_pix."""
        own = {"norm_pix": self.norm_pix, "image_size": self.image_size}
        return dataclasses.asdict(self.size) | own

    def make_encoder(self, rngs: nnx.Rngs) -> Encoder:
        return Encoder(self.size, self.dtype, self.scan, self.remat, rngs)

    def make_decoder(self, rngs: nnx.Rngs) -> Decoder:
        return Decoder(self.size, self.dtype, self.scan, self.remat, rngs)

    def init(self, rng: Rng) -> Params:
        widths = {"encoder": self.size.width, "decoder": self.size.decoder_width}
        tables = {k: positions.sincos_2d(w, self.grid[0], True) for k, w in widths.items()}
        fixed = {k: jnp.asarray(table, jnp.float32) for k, table in tables.items()}
        return super().init(rng) | {"positions": fixed}

    def corrupt(
        self,
        params: Params,
        images: Images,
        mask: Mask,
        rng: Rng,
        targets: Images | None = None,
        visible: Visible | None = None,
    ) -> Inputs:
        """Drops as many hidden patches as `visible` allows, and sets the others to zero."""
        del params, rng  # this T has no parameters, and only the mask is random
        hidden = pixels.coarsen_mask(mask, self.grid).reshape(mask.shape[0], -1)
        fewest, most = visible or (0, hidden.shape[1])  # numbers of visible patches
        patches = self.patchify(images)
        order = jnp.argsort(hidden, axis=1, stable=True)  # visible patches first, in raster order
        places = order[:, :most]
        shown = jnp.where(hidden[..., None], 0.0, patches)
        return Inputs(
            tokens=jnp.take_along_axis(shown, places[..., None], axis=1),
            places=places,
            restore=jnp.argsort(order, axis=1),
            attend=None if fewest == most else ~jnp.take_along_axis(hidden, places, axis=1),
            hidden=hidden,
            target=patches if targets is None else self.patchify(targets),
        )

    def encode(self, params: Params, inputs: Inputs) -> Latents:
        """[B, 1 + K, D] after the final LayerNorm, class token first."""
        encoder = self.encoder.bind(params["encoder"])
        return encoder(inputs, params["positions"]["encoder"])

    def decode(self, params: Params, latents: Latents, inputs: Inputs) -> Patches:
        """[B, L, P] float32, normalised pixels (patch-normalised with norm_pix)."""
        decoder = self.decoder.bind(params["decoder"])
        return decoder(latents, inputs, params["positions"]["decoder"])

    def activations(self, params: Params, inputs: Inputs) -> Activations:
        tables, encoder = params["positions"], self.encoder.bind(params["encoder"])
        latents = encoder(inputs, tables["encoder"])
        decoder = self.decoder.bind(params["decoder"])
        return named_activations(
            encoder.activations(inputs, tables["encoder"]),
            decoder.activations(latents, inputs, tables["decoder"]),
        )

    def loss_mask(self, inputs: Inputs) -> Bool[Array, "B L 1"]:
        """[B, L, 1]: the hidden patches."""
        return inputs.hidden[..., None]

    def head_examples(
        self, params: Params, inputs: Inputs
    ) -> tuple[Float[Array, "B L E"], Patches, Bool[Array, "B L"]]:
        """(what the last layer decoder/pred is given, what it should return, where that counts)."""
        decoder, table = self.decoder.bind(params["decoder"]), params["positions"]["decoder"]
        features = decoder.features(self.encode(params, inputs), inputs, table)
        return features[:, 1:].astype(jnp.float32), self.target(inputs), inputs.hidden

    def target(self, inputs: Inputs) -> Patches:
        """[B, L, P]: what D should return."""
        target = inputs.target
        if not self.norm_pix:
            return target
        variance = jnp.var(target, axis=-1, keepdims=True, ddof=1)
        return (target - jnp.mean(target, axis=-1, keepdims=True)) / jnp.sqrt(variance + 1e-6)

    def loss(self, params: Params, inputs: Inputs) -> PerImage:
        """[B] mean squared error over the hidden patches."""
        error = jnp.mean((self.predict(params, inputs) - self.target(inputs)) ** 2, axis=-1)
        return masked_mean(error, inputs.hidden)

    def reconstruct(
        self,
        params: Params,
        images: Images,
        mask: Mask,
        rng: Rng,
        visible: Visible | None = None,
    ) -> Images:
        """Decoded pixels where hidden. ConfigError for a model with norm_pix."""
        if self.norm_pix:
            raise ConfigError(
                "This MAE predicts pixels normalised by the hidden patch's own mean and variance, "
                "so it cannot complete an image. Use weights trained on plain pixels "
                "(mae_visualize_vit_*.pth) with model.args.norm_pix=False."
            )
        return super().reconstruct(params, images, mask, rng, visible)

    def patchify(self, images: Images) -> Patches:
        """[B, H, W, 3] in [0, 1] -> [B, L, P] normalised patches in raster order."""
        b, (h, w), p = images.shape[0], self.grid, self.size.patch
        x = ((images - MEAN) / STD).reshape(b, h, p, w, p, 3)
        return x.swapaxes(2, 3).reshape(b, h * w, p * p * 3)

    def to_images(self, outputs: Patches) -> Images:
        return self.unpatchify(outputs)

    def unpatchify(self, patches: Patches) -> Images:
        """The inverse of patchify, not clipped."""
        b, (h, w), p = patches.shape[0], self.grid, self.size.patch
        x = patches.reshape(b, h, w, p, p, 3).swapaxes(2, 3).reshape(b, h * p, w * p, 3)
        return x * STD + MEAN


def build(
    *,
    size: str = "base",
    image_size: int = 224,
    norm_pix: bool = False,
    scan: bool = False,
    remat: bool = False,
    dtype: str = "auto",
    width: int = 0,
    depth: int = 0,
    heads: int = 0,
    decoder_width: int = 0,
    decoder_depth: int = 0,
    decoder_heads: int = 0,
    patch: int = 0,
) -> MAE:
    """Builds a published size; any dimension can be overridden (0 keeps the published value).

    scan compiles one block and loops over it; remat recomputes each block in the backward pass,
    with or without scan. dtype is that of the computation: "float32", "bfloat16", or "auto"
    (bfloat16 on accelerators).
    """
    encoder = dict(width=width, depth=depth, heads=heads, patch=patch)
    decoder = dict(decoder_width=decoder_width, decoder_depth=decoder_depth)
    decoder |= dict(decoder_heads=decoder_heads)
    chosen = choose_size("MAE", SIZES, size, **encoder, **decoder)
    vit.check_widths(chosen, 4)  # sine-cosine positions consist of four parts
    check_divides(image_size, chosen.patch, f"cut into patches of {chosen.patch}")
    return MAE(chosen, image_size, norm_pix, scan, remat, compute_dtype(dtype))


def _with_class(attend: Bool[Array, "B K"]) -> Bool[Array, "B M"]:
    """[B, K] -> [B, 1 + K]: the class token is always attended to."""
    return jnp.pad(attend, ((0, 0), (1, 0)), constant_values=True)
