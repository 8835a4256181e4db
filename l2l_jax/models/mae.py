"""Masked autoencoder (He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022).

T  cut the image into patches and drop the hidden ones
E  embed the visible patches, add fixed sine-cosine positions, prepend a class token, run a ViT
D  put a mask token into every hidden place, run a smaller ViT, predict the pixels of each patch

loss = mean over hidden patches of |prediction - patch|^2 / (3 p^2)

Pixels are normalised with the ImageNet mean and standard deviation. With `norm_pix` the target is
each patch normalised by its own mean and variance: better features, but such a model cannot
complete an image, since the statistics of a hidden patch are not known. The released files named
`mae_visualize_*` predict plain pixels, those named `mae_pretrain_*_full` normalised ones.

Released quirks kept: the class token runs through the decoder and is then dropped; the variance in
`norm_pix` is unbiased with 1e-6 under the root; no dropout anywhere.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l_jax.lib import pixels
from l2l_jax.lib.errors import ConfigError, unknown
from l2l_jax.lib.nnx_pure import Pure
from l2l_jax.lib.precision import compute_dtype
from l2l_jax.models.layers import positions, vit
from l2l_jax.types import Array, Metrics, Params

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
SMALLEST = dict(size="test", image_size=16)  # what tests build


@flax.struct.dataclass
class Inputs:
    """What T makes. K places are given to the encoder, L = h * w patches exist."""

    tokens: Array  # [B, K, p * p * 3] normalised visible patches; zeros where not `attend`
    places: Array  # [B, K] int32, where they come from
    restore: Array  # [B, L] int32, rank of every patch: visible ones first, then hidden
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

    def embed(self, inputs: Inputs, table: Array) -> Array:
        """[B, 1 + K, D]; table: [1 + L, D] positions, class row first."""
        x = self.patch_embed(inputs.tokens)
        x = x + table[1:][inputs.places].astype(x.dtype)
        cls = (self.cls_token[...] + table[:1]).astype(x.dtype)
        return jnp.concatenate([jnp.broadcast_to(cls, (x.shape[0], 1, x.shape[2])), x], axis=1)

    def __call__(self, inputs: Inputs, table: Array) -> Array:
        x = self.embed(inputs, table)
        attend = None if inputs.attend is None else _with_class(inputs.attend)
        x = self.norm(vit.apply_blocks(self.blocks, x, attend, self.remat))
        return x if attend is None else jnp.where(attend[..., None], x, 0)


class Decoder(nnx.Module):
    """Latents -> normalised pixels of every patch."""

    def __init__(self, size: Size, dtype: vit.Dtype, scan: bool, remat: bool, rngs: nnx.Rngs):
        self.remat = remat
        width = size.decoder_width
        self.embed = vit.linear(size.width, width, dtype, rngs)
        self.mask_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 1, width)))
        heads, depth = size.decoder_heads, size.decoder_depth
        self.blocks = vit.make_blocks(depth, width, heads, dtype, scan, rngs)
        self.norm = nnx.LayerNorm(width, epsilon=vit.EPSILON, dtype=dtype, rngs=rngs)
        self.pred = vit.linear(width, size.patch**2 * 3, dtype, rngs)

    def fill(self, latents: Array, inputs: Inputs, table: Array) -> Array:
        """[B, 1 + L, D']: every patch in its place, the mask token where it is hidden."""
        x = self.embed(latents)
        b, _, d = x.shape
        patches, token = x[:, 1:], self.mask_token[...].astype(x.dtype)
        if inputs.attend is not None:
            patches = jnp.where(inputs.attend[..., None], patches, token)
        missing = inputs.restore.shape[1] - patches.shape[1]
        tokens = jnp.broadcast_to(token, (b, missing, d))
        ranked = jnp.concatenate([patches, tokens], axis=1)
        placed = jnp.take_along_axis(ranked, inputs.restore[..., None], axis=1)
        return jnp.concatenate([x[:, :1], placed], axis=1) + table.astype(x.dtype)

    def __call__(self, latents: Array, inputs: Inputs, table: Array) -> Array:
        x = vit.apply_blocks(self.blocks, self.fill(latents, inputs, table), remat=self.remat)
        return self.pred(self.norm(x))[:, 1:].astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class MAE:
    """The model as `ImageToImage`. Groups: encoder, decoder, positions (never trained)."""

    size: Size
    image_size: int
    norm_pix: bool
    scan: bool
    remat: bool
    dtype: vit.Dtype
    takes_tokens = False
    shows_hidden = False
    sampling = "one pass"

    @property
    def grid(self) -> tuple[int, int]:
        return (self.image_size // self.size.patch,) * 2

    @property
    def identity(self) -> dict[str, object]:
        """What weights belong to, also where the shapes do not show it (heads, norm_pix)."""
        about = {"norm_pix": self.norm_pix, "image_size": self.image_size}
        return dataclasses.asdict(self.size) | about

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
        return Pure(lambda rngs: Encoder(self.size, self.dtype, self.scan, self.remat, rngs))

    @functools.cached_property
    def decoder(self) -> Pure:
        return Pure(lambda rngs: Decoder(self.size, self.dtype, self.scan, self.remat, rngs))

    @functools.cached_property
    def template(self) -> Params:
        return jax.eval_shape(self.init, jax.random.key(0))

    @functools.cached_property
    def canonical(self) -> Params:
        return dataclasses.replace(self, scan=False).template

    def init(self, rng: Array) -> Params:
        encoder, decoder = jax.random.split(rng)
        widths = {"encoder": self.size.width, "decoder": self.size.decoder_width}
        tables = {k: positions.sincos_2d(w, self.grid[0], True) for k, w in widths.items()}
        return {
            "encoder": self.encoder.init(encoder),
            "decoder": self.decoder.init(decoder),
            "positions": {k: jnp.asarray(t, jnp.float32) for k, t in tables.items()},
        }

    def corrupt(
        self,
        params: Params,
        images: Array,
        mask: Array,
        rng: Array,
        targets: Array | None = None,
        visible: tuple[int, int] | None = None,
    ) -> Inputs:
        """Drops the hidden patches; those of whose number nothing is known are blanked instead."""
        del params, rng  # nothing in MAE's T is learned or random besides the mask
        hidden = pixels.coarse(mask, self.grid).reshape(mask.shape[0], -1)
        fewest, most = visible or (0, hidden.shape[1])
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

    def encode(self, params: Params, inputs: Inputs) -> Array:
        """[B, 1 + K, D] after the final LayerNorm, class token first."""
        encoder = self.encoder.bind(params["encoder"])
        return encoder(inputs, params["positions"]["encoder"])

    def decode(self, params: Params, latents: Array, inputs: Inputs) -> Array:
        """[B, L, p * p * 3] float32, normalised pixels (patch-normalised with norm_pix)."""
        decoder = self.decoder.bind(params["decoder"])
        return decoder(latents, inputs, params["positions"]["decoder"])

    def loss_mask(self, inputs: Inputs) -> Array:
        """[B, L, 1]: the hidden patches."""
        return inputs.hidden[..., None]

    def loss(self, params: Params, inputs: Inputs) -> Array:
        """[B] mean squared error over the hidden patches."""
        target = inputs.target
        if self.norm_pix:
            variance = jnp.var(target, axis=-1, keepdims=True, ddof=1)
            target = (target - jnp.mean(target, axis=-1, keepdims=True)) / jnp.sqrt(variance + 1e-6)
        prediction = self.decode(params, self.encode(params, inputs), inputs)
        error = jnp.mean((prediction - target) ** 2, axis=-1)
        return jnp.sum(error * inputs.hidden, axis=1) / jnp.maximum(inputs.hidden.sum(axis=1), 1)

    def training_loss(self, params: Params, inputs: Inputs) -> tuple[Array, Metrics]:
        """Mean of `loss`; nothing more to report."""
        return jnp.mean(self.loss(params, inputs)), {}

    def reconstruct(
        self,
        params: Params,
        images: Array,
        mask: Array,
        rng: Array,
        visible: tuple[int, int] | None = None,
    ) -> Array:
        """Predicted pixels where hidden, the given ones elsewhere; [B, H, W, 3] in [0, 1]."""
        if self.norm_pix:
            raise ConfigError(
                "This MAE predicts pixels normalised by the hidden patch's own mean and variance, "
                "so it cannot complete an image. Use weights trained on plain pixels "
                "(mae_visualize_vit_*.pth) with model.args.norm_pix=False."
            )
        inputs = self.corrupt(params, images, mask, rng, visible=visible)
        prediction = self.decode(params, self.encode(params, inputs), inputs)
        return pixels.paste(images, self.unpatchify(prediction), mask)

    def patchify(self, images: Array) -> Array:
        """[B, H, W, 3] in [0, 1] -> [B, L, p * p * 3] normalised; (row, column, channel) inside."""
        b, (h, w), p = images.shape[0], self.grid, self.size.patch
        x = ((images - MEAN) / STD).reshape(b, h, p, w, p, 3)
        return x.swapaxes(2, 3).reshape(b, h * w, p * p * 3)

    def unpatchify(self, patches: Array) -> Array:
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
    """A MAE of a published size, any number of which (0 = as published) can be changed.

    scan compiles one block and loops over it; remat (needs scan) recomputes it backwards. dtype is
    that of the computation: "float32", "bfloat16", or "auto" (bfloat16 on accelerators).
    """
    if size not in SIZES:
        raise unknown("MAE size", size, SIZES)
    if remat and not scan:
        raise ConfigError("model.args.remat needs model.args.scan=True.")
    given = dict(width=width, depth=depth, heads=heads, patch=patch)
    given |= dict(decoder_width=decoder_width, decoder_depth=decoder_depth)
    given |= dict(decoder_heads=decoder_heads)
    chosen = dataclasses.replace(SIZES[size], **{k: v for k, v in given.items() if v})
    if image_size % chosen.patch:
        near = image_size - image_size % chosen.patch or chosen.patch
        raise ConfigError(
            f"An image of {image_size} pixels cannot be cut into patches of {chosen.patch}; "
            f"try image_size={near} or {near + chosen.patch}."
        )
    return MAE(chosen, image_size, norm_pix, scan, remat, compute_dtype(dtype))


def _with_class(attend: Array) -> Array:
    """[B, K] -> [B, 1 + K]: the class token is always looked at."""
    return jnp.pad(attend, ((0, 0), (1, 0)), constant_values=True)
