"""MAGE, a masked-token transformer over a frozen VQ-GAN (Li et al., CVPR 2023).

T  tokenise the image, mask the tokens of the hidden cells, drop some of the masked ones
E  embed the kept tokens, masked ones included, prepend a class token, run a ViT
D  put the projected class token at every masked position, run a smaller ViT, one logit per code

loss = mean over masked tokens of the cross-entropy, with label smoothing 0.1 over the codes

The released unlearning code calls this model VQ-GAN: it trains E and leaves the convolutional
tokenizer unchanged. Completing an image (`reconstruct`) is iterative parallel decoding (Chang et
al., CVPR 2022) with the released settings as defaults: 20 cosine steps, choice temperature 6. It
fills the hole with a mean colour before tokenising, masks every token within `margin` tokens of the
hole (or one-sidedly, as released, if the task says so), and drops nothing. Training tokenises whole
images, as published: through the convolutions of the tokenizer, tokens next to a masked token
contain information about its pixels.

`tying` chooses the word embeddings of the logits. "tied" uses E's, without a gradient through the
logits, as the published weights were trained; then unlearning E changes D, too. "frozen" gives D
its own copy, so that the decoder is truly frozen, as Theorem 1 of Li et al. (ICLR 2024) needs.
Published files, which are tied, can be loaded as either: for "frozen" D gets a copy on loading.

Released quirks kept: ids 0..codes-1 are codes, the class token is id codes + 76 and the mask token
codes + 1000; LayerNorm epsilon is 1e-6, but 1e-5 before the logits; masked and dropped positions
hold the class token's output. Departures: no dropout (released: 0.1 on the embeddings of the
student only); the loss is averaged within each image first.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Int, Integer

from l2l_jax.lib import blur, masks, pixels, trees
from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.lib.precision import compute_dtype
from l2l_jax.lib.sharding import whole
from l2l_jax.lib.signatures import check_args, keyword_defaults
from l2l_jax.models import vqgan
from l2l_jax.models.layers import parallel_decoding, vit
from l2l_jax.models.layers.base import Model, choose_size, named_activations
from l2l_jax.models.layers.masked_tokens import (
    Decoder,
    Encoder,
    Flags,
    Ids,
    Inputs,
    Latents,
    arrange,
    cross_entropy,
)
from l2l_jax.models.layers.parallel_decoding import Logits
from l2l_jax.types import (
    DEPTH_BOUNDS,
    PIXEL_BOUNDS,
    WIDTH_BOUNDS,
    Activations,
    Array,
    Bounds,
    Images,
    Mask,
    Metrics,
    Params,
    PerImage,
    Rng,
    Scalar,
    Tokens,
    Visible,
)

CLASS, MASK = 76, 1000  # ids of the class token and of the mask token, beyond the codes
SPARE = 1001  # number of ids beyond the codes: 1,000 classes, of which one is used, and the mask
TYINGS, COMPOSITES = ("tied", "frozen"), ("exact", "blurred")


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths, depths and heads of encoder and decoder."""

    width: int
    depth: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int


SIZES = {
    "base": Size(768, 12, 12, 768, 8, 16),
    "large": Size(1024, 24, 16, 1024, 8, 16),
    "small": Size(128, 4, 4, 128, 2, 4),  # the bundled one, for 64 tokens
    "test": Size(16, 2, 2, 16, 1, 2),
}
TOKENIZER = {  # the arguments of the tokenizer that a MAGE does not fix, with their defaults
    key: value
    for key, value in keyword_defaults(vqgan.build).items()
    if key not in ("image_size", "dtype", "adversarial", "revive")
}
AnyTokens = Integer[Array, "B h w"]  # a cache stores them as unsigned integers
SMALLEST = dict(size="test", image_size=16, tokenizer=dict(size="test"), steps=4)
BOUNDS = {
    "image_size": PIXEL_BOUNDS,
    "tokenizer": vqgan.BOUNDS,
    "drop": Bounds(0, 1),
    "steps": Bounds(1, 10_000),
    "temperature": Bounds(0, 1000),
    "margin": Bounds(0, 1000),
    "width": WIDTH_BOUNDS,
    "depth": DEPTH_BOUNDS,
    "heads": WIDTH_BOUNDS,
    "decoder_width": WIDTH_BOUNDS,
    "decoder_depth": DEPTH_BOUNDS,
    "decoder_heads": WIDTH_BOUNDS,
}


@dataclasses.dataclass(frozen=True)
class MAGE(Model):
    """The model as `TokenModel`. Groups: encoder, decoder, tokenizer (never trained)."""

    size: Size
    tokenizer: vqgan.VQGAN
    tying: str
    drop: int | float
    steps: int
    temperature: int | float
    margin: int
    composite: str
    tokenizer_digest: str
    scan: bool
    remat: bool
    dtype: vit.Dtype
    takes_tokens = True

    @property
    def image_size(self) -> int:
        return self.tokenizer.image_size

    @property
    def grid(self) -> tuple[int, int]:
        return self.tokenizer.grid

    @property
    def length(self) -> int:
        """Number of tokens of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def codes(self) -> int:
        return self.tokenizer.codes

    @property
    def max_dropped(self) -> int:
        """Number of tokens of an image that T drops at most."""
        return int(np.ceil(self.length * self.drop))

    @property
    def identity(self) -> dict[str, Any]:
        """The dimensions, the image size, and the tokenizer with its digest."""
        own = {"tokenizer": self.tokenizer.identity, "tokenizer_digest": self.tokenizer_digest}
        return dataclasses.asdict(self.size) | own | {"image_size": self.image_size}

    def inferred_args(self, params: Params) -> dict[str, Any]:
        """The digest of the tokenizer's parameters."""
        return {"tokenizer_digest": trees.digest(params["tokenizer"])}

    def make_encoder(self, rngs: nnx.Rngs) -> Encoder:
        size = self.size
        stack = self._stack(size.width, size.depth, size.heads)
        return Encoder(self.codes + SPARE, self.length, self.codes + CLASS, stack, rngs)

    def make_decoder(self, rngs: nnx.Rngs) -> Decoder:
        size, owns_words = self.size, self.tying == "frozen"
        stack = self._stack(size.decoder_width, size.decoder_depth, size.decoder_heads)
        return Decoder(self.codes + SPARE, self.length, size.width, owns_words, stack, rngs)

    def _stack(self, width: int, depth: int, heads: int) -> vit.Stack:
        return vit.Stack(width, depth, heads, self.dtype, self.scan, self.remat)

    @property
    def sampling(self) -> str:
        steps = f"{self.steps} steps, temperature {self.temperature:g}, margin {self.margin:g}"
        return f"{steps}, {self.composite} composite"

    def init(self, rng: Rng) -> Params:
        encoder, decoder, tokenizer = jax.random.split(rng, 3)
        params = {
            "encoder": self.encoder.init(encoder),
            "decoder": self.decoder.init(decoder),
            "tokenizer": self.tokenizer.init(tokenizer),
        }
        if self.tying == "frozen":
            params["decoder"]["words"] = jnp.copy(params["encoder"]["words"])
        return params

    def corrupt(
        self,
        params: Params,
        images: Images | AnyTokens,
        mask: Mask,
        rng: Rng,
        targets: Images | AnyTokens | None = None,
        visible: Visible | None = None,
    ) -> Inputs:
        """Masks tokens that overlap a hidden cell; drops at most `drop` * L of those, at random."""
        tokens = self._tokens(params, images)
        target = tokens if targets is None else self._tokens(params, targets)
        hidden = self._hidden(mask)
        order = jnp.where(hidden, jax.random.uniform(rng, hidden.shape), 2.0)
        dropped = hidden & (_rank(order) < self.max_dropped)
        fewest, most = visible or (0, self.length)
        min_dropped = min(self.length - most, self.max_dropped)  # of any image
        same = fewest == most or min_dropped == self.max_dropped
        masked = jnp.where(hidden, self.codes + MASK, tokens)
        return arrange(masked, hidden, dropped, self.length - min_dropped, same, target)

    def encode(self, params: Params, inputs: Inputs) -> Latents:
        """[B, 1 + K, D] after the final LayerNorm, class token first."""
        return self.encoder.bind(params["encoder"])(inputs)

    def decode(self, params: Params, latents: Latents, inputs: Inputs) -> Logits:
        """[B, L, codes] float32 logits of every token."""
        return self.logits(params, latents, inputs, self.codes)[:, 1:]

    def logits(
        self, params: Params, latents: Latents, inputs: Inputs, count: int
    ) -> Float[Array, "B N V"]:
        """[B, 1 + L, count] float32: logits of the first `count` ids, class token included."""
        tied = self.tying == "tied"
        owner = jax.lax.stop_gradient(params["encoder"]) if tied else params["decoder"]
        decoder = self.decoder.bind(params["decoder"])
        return decoder(latents, inputs, whole(owner["words"])[:count])

    def activations(self, params: Params, inputs: Inputs) -> Activations:
        encoder = self.encoder.bind(params["encoder"])
        decoder = self.decoder.bind(params["decoder"])
        maps = decoder.activations(encoder(inputs), inputs)
        return named_activations(encoder.activations(inputs), maps)

    def loss_mask(self, inputs: Inputs) -> Bool[Array, "B L 1"]:
        """[B, L, 1]: the masked tokens."""
        return inputs.hidden[..., None]

    def loss(self, params: Params, inputs: Inputs) -> PerImage:
        """[B] label-smoothed cross-entropy, mean over the masked tokens of each image."""
        return cross_entropy(self.predict(params, inputs), inputs)

    def training_loss(self, params: Params, inputs: Inputs) -> tuple[Scalar, Metrics]:
        """(mean of `loss`, fraction of masked tokens that are predicted correctly)."""
        logits = self.predict(params, inputs)
        right = (jnp.argmax(logits, axis=-1) == inputs.target) & inputs.hidden
        accuracy = jnp.sum(right) / jnp.maximum(jnp.sum(inputs.hidden), 1)
        return jnp.mean(cross_entropy(logits, inputs)), {"token_accuracy": accuracy}

    def predict_tokens(self, params: Params, tokens: Ids, opened: Flags) -> Logits:
        """[B, L, codes] logits for ids with the mask token where `opened`; nothing is dropped."""
        nothing = jnp.zeros_like(opened)
        inputs = arrange(tokens, opened, nothing, self.length, True, tokens)
        return self.predict(params, inputs)

    def tokenize(self, params: Params, images: Images) -> Tokens:
        """[B, H, W, 3] in [0, 1] -> [B, h, w] int32."""
        return self.tokenizer.tokenize(params["tokenizer"], images)

    def detokenize(self, params: Params, tokens: AnyTokens) -> Images:
        """[B, h, w] int32 -> [B, H, W, 3] float32, not clipped."""
        return self.tokenizer.detokenize(params["tokenizer"], tokens)

    def _tokens(self, params: Params, images: Images | AnyTokens) -> Ids:
        are_tokens = jnp.issubdtype(images.dtype, jnp.integer)
        tokens = images.astype(jnp.int32) if are_tokens else self.tokenize(params, images)
        return tokens.reshape(-1, self.length)

    def _hidden(self, mask: Mask, margin: int = 0, one_sided: bool = False) -> Flags:
        """[B, L] bool: tokens that overlap a hidden cell, and those at most `margin` away.

        one_sided: as in the released code, see masks.OneSided.
        """
        if one_sided and margin:
            finer = mask.shape[1] // self.grid[0]
            grown = blur.grow_mask(mask, margin * finer, (margin - 1) * finer + 1)
            hidden = pixels.coarsen_mask(grown, self.grid)
        else:
            hidden = blur.grow_mask(pixels.coarsen_mask(mask, self.grid), margin)
        return jnp.reshape(hidden, (-1, self.length))

    def unseen(self, mask: Mask, visible: Visible | None = None) -> Bool[Array, "B h w"]:
        one_sided = isinstance(visible, masks.OneSided)
        return self._hidden(mask, self.margin, one_sided).reshape(-1, *self.grid)

    def reconstruct(
        self,
        params: Params,
        images: Images,
        mask: Mask,
        rng: Rng,
        visible: Visible | None = None,
    ) -> Images:
        """[B, H, W, 3] in [0, 1]: sampled tokens, decoded and pasted as `composite` says."""
        hole = pixels.hidden_pixels(mask, self.image_size)
        filled = jnp.where(hole, vqgan.FILL, images)
        tokens = self._tokens(params, filled)
        tokens = parallel_decoding.decode(
            tokens,
            self.unseen(mask, visible).reshape(-1, self.length),
            functools.partial(self.predict_tokens, params),
            rng,
            mask_id=self.codes + MASK,
            steps=self.steps,
            temperature=self.temperature,
        )
        decoded = self.detokenize(params, tokens.reshape(-1, *self.grid))
        if self.composite == "exact":
            return pixels.paste(images, decoded, mask)
        side = self.image_size // self.grid[0]
        wide = blur.grow_mask(hole[..., 0], round(side * 14 / 16))
        weight = blur.gaussian_blur(wide, side * 7 / 16)[..., None]
        return jnp.clip(weight * decoded + (1 - weight) * filled, 0.0, 1.0)


def build(
    *,
    size: str = "base",
    image_size: int = 256,
    tokenizer: Mapping[str, Any] = TOKENIZER,
    tokenizer_digest: str = "",
    tying: str = "frozen",
    drop: int | float = 0.5,
    steps: int = 20,
    temperature: int | float = 6.0,
    margin: int = 1,
    composite: str = "exact",
    scan: bool = False,
    remat: bool = False,
    dtype: str = "auto",
    width: int = 0,
    depth: int = 0,
    heads: int = 0,
    decoder_width: int = 0,
    decoder_depth: int = 0,
    decoder_heads: int = 0,
) -> MAGE:
    """Builds a published size; any dimension can be overridden (0 keeps the published value).

    tokenizer: arguments of models/vqgan.py, which always computes in float32. tokenizer_digest:
    refuse weights with another tokenizer ("" = any). steps, temperature, margin (in tokens) and
    composite are settings of `reconstruct`; composite is "exact" (visible pixels as given) or
    "blurred" (blended over a soft edge with the filled image, as in the released evaluation).
    """
    encoder = dict(width=width, depth=depth, heads=heads, decoder_width=decoder_width)
    decoder = dict(decoder_depth=decoder_depth, decoder_heads=decoder_heads)
    chosen = choose_size("MAGE", SIZES, size, **encoder, **decoder)
    if tying not in TYINGS:
        raise unknown_name("tying", tying, TYINGS)
    if composite not in COMPOSITES:
        raise unknown_name("composite", composite, COMPOSITES)
    vit.check_widths(chosen)
    if not 0 <= drop <= 1 or steps < 1 or temperature < 0 or margin < 0:
        raise ConfigError(
            "MAGE needs 0 <= drop <= 1, steps >= 1, temperature >= 0 and margin >= 0, not "
            f"drop={drop}, steps={steps}, temperature={temperature}, margin={margin}."
        )
    _check_tokenizer(tokenizer)
    return MAGE(
        size=chosen,
        tokenizer=vqgan.build(**{**tokenizer, "image_size": image_size, "dtype": "float32"}),
        tying=tying,
        drop=drop,
        steps=steps,
        temperature=temperature,
        margin=margin,
        composite=composite,
        tokenizer_digest=tokenizer_digest,
        scan=scan,
        remat=remat,
        dtype=compute_dtype(dtype),
    )


def _check_tokenizer(args: Mapping[str, Any]) -> None:
    check_args(vqgan.build, args, "model.args.tokenizer", vqgan.BOUNDS)
    if fixed := args.keys() - TOKENIZER.keys():
        raise ConfigError(
            f"model.args.tokenizer does not take {', '.join(sorted(fixed))} in a MAGE: the "
            "tokenizer has the image size of the MAGE and is not trained."
        )


def _rank(values: Float[Array, "B L"]) -> Int[Array, "B L"]:
    return jnp.argsort(jnp.argsort(values, axis=1), axis=1)
