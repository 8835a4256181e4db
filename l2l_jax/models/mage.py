"""MAGE, a masked-token transformer over a frozen VQ-GAN (Li et al., CVPR 2023).

T  tokenise the image, mask the tokens of the hidden cells, drop some of the masked ones
E  embed the tokens that are left, masked ones included, prepend a class token, run a ViT
D  fill every masked place with the projected class token, run a smaller ViT, one logit per code

loss = mean over masked tokens of the cross-entropy, with label smoothing 0.1 over the codes

What the released unlearning code calls VQ-GAN is this model: E is trained, and the convolutional
tokenizer is never touched. Completing an image (`reconstruct`) is iterative parallel decoding
(Chang et al., CVPR 2022) with the released settings as defaults: 20 cosine steps, choice
temperature 6. There the hole is filled with a mean colour before tokenising, every token that
overlaps it is masked, one more all around (`margin`), and nothing is dropped. In training whole
images are tokenised, as published: tokens next to a masked one have seen some of its pixels through
the convolutions of the tokenizer.

`tying` says what the logits are taken against. "tied" ties them to E's word embeddings, with
no gradient through the logits, as the published weights were trained; then unlearning E moves D.
"frozen" gives D a copy of its own, so that the decoder is truly frozen, as Theorem 1 of Li et al.
(ICLR 2024) needs. Published files, whose logits are tied, can be loaded as either: for "frozen" D
is given its copy of the words on loading.

Released quirks kept: ids 0..codes-1 are codes, the class token is id codes + 76 and the mask token
codes + 1000; LayerNorm epsilon is 1e-6, but 1e-5 before the logits; masked and dropped places are
filled with the class token's output. Departures: no dropout (there: 0.1 on the embeddings of the
student, and none on the teacher's); the loss is averaged within each image first.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.lib import blur, pixels, trees
from l2l_jax.lib.errors import ConfigError, unknown
from l2l_jax.lib.nnx_pure import Pure
from l2l_jax.lib.precision import compute_dtype
from l2l_jax.lib.signatures import check_args, defaults
from l2l_jax.models import vqgan
from l2l_jax.models.layers import parallel_decoding, vit
from l2l_jax.models.layers.masked_tokens import Decoder, Encoder, Inputs, arrange
from l2l_jax.types import Array, Metrics, Params

CLASS, MASK = 76, 1000  # ids of the two, beyond the codes
SPARE = 1001  # ids beyond the codes: class labels, of which one is used, and the mask token
SMOOTHING = 0.1
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
    "small": Size(128, 4, 4, 128, 2, 4),  # the bundled one, 64 tokens
    "test": Size(16, 2, 2, 16, 1, 2),
}
PUBLISHED = {  # every argument of the tokenizer that a MAGE leaves open
    key: value
    for key, value in defaults(vqgan.build).items()
    if key not in ("image_size", "dtype", "adversarial", "revive")
}
SMALLEST = dict(size="test", image_size=16, tokenizer=dict(size="test"), steps=4)


@dataclasses.dataclass(frozen=True)
class MAGE:
    """The model as `ImageToImage`. Groups: encoder, decoder, tokenizer (never trained)."""

    size: Size
    tokenizer: vqgan.VQGAN
    tying: str
    drop: float
    steps: int
    temperature: float
    margin: int
    composite: str
    tokenizer_digest: str
    scan: bool
    remat: bool
    dtype: vit.Dtype
    takes_tokens = True
    shows_hidden = False

    @property
    def image_size(self) -> int:
        return self.tokenizer.image_size

    @property
    def grid(self) -> tuple[int, int]:
        return self.tokenizer.grid

    @property
    def length(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def codes(self) -> int:
        return self.tokenizer.codes

    @property
    def identity(self) -> dict[str, object]:
        """What weights belong to, also where the shapes do not show it."""
        own = {"tokenizer": self.tokenizer.identity, "tokenizer_digest": self.tokenizer_digest}
        return dataclasses.asdict(self.size) | own | {"image_size": self.image_size}

    def inferred_args(self, params: Params) -> dict[str, object]:
        """The arguments that parameters (on the host) tell by themselves: which tokenizer it is."""
        return {"tokenizer_digest": trees.digest(params["tokenizer"])}

    @functools.cached_property
    def encoder(self) -> Pure:
        size = self.size
        shape = self._stack(size.width, size.depth, size.heads)
        ids = self.codes + SPARE, self.length, self.codes + CLASS
        return Pure(lambda rngs: Encoder(*ids, shape, rngs))

    @functools.cached_property
    def decoder(self) -> Pure:
        size = self.size
        shape = self._stack(size.decoder_width, size.decoder_depth, size.decoder_heads)
        ids, owns = (self.codes + SPARE, self.length), self.tying == "frozen"
        return Pure(lambda rngs: Decoder(*ids, size.width, owns, shape, rngs))

    def _stack(self, width: int, depth: int, heads: int) -> vit.Stack:
        return vit.Stack(width, depth, heads, self.dtype, self.scan, self.remat)

    @property
    def sampling(self) -> str:
        told = f"{self.steps} steps, temperature {self.temperature:g}, margin {self.margin:g}"
        return f"{told}, {self.composite} composite"

    @functools.cached_property
    def template(self) -> Params:
        return jax.eval_shape(self.init, jax.random.key(0))

    @functools.cached_property
    def canonical(self) -> Params:
        return dataclasses.replace(self, scan=False).template

    def init(self, rng: Array) -> Params:
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
        images: Array,
        mask: Array,
        rng: Array,
        targets: Array | None = None,
        visible: tuple[int, int] | None = None,
    ) -> Inputs:
        """Masks tokens that overlap a hidden cell; drops up to `drop` * L of those, at random.

        images and targets may be given as tokens, [B, h, w] integers.
        """
        tokens = self._tokens(params, images)
        target = tokens if targets is None else self._tokens(params, targets)
        hidden = self._hidden(mask)
        order = jnp.where(hidden, jax.random.uniform(rng, hidden.shape), 2.0)
        dropped = hidden & (_rank(order) < self.most_dropped)
        fewest, most = visible or (0, self.length)
        surely = min(self.length - most, self.most_dropped)  # dropped of every image
        same = fewest == most or surely == self.most_dropped
        masked = jnp.where(hidden, self.codes + MASK, tokens)
        return arrange(masked, hidden, dropped, self.length - surely, same, target)

    @property
    def most_dropped(self) -> int:
        return int(np.ceil(self.length * self.drop))

    def encode(self, params: Params, inputs: Inputs) -> Array:
        """[B, 1 + K, D] after the final LayerNorm, class token first."""
        return self.encoder.bind(params["encoder"])(inputs)

    def decode(self, params: Params, latents: Array, inputs: Inputs) -> Array:
        """[B, L, codes] float32 logits of every token."""
        return self.logits(params, latents, inputs, self.codes)[:, 1:]

    def logits(self, params: Params, latents: Array, inputs: Inputs, words: int) -> Array:
        """[B, 1 + L, words] float32: of the class token too, and of so many ids."""
        tied = self.tying == "tied"
        owner = jax.lax.stop_gradient(params["encoder"]) if tied else params["decoder"]
        decoder = self.decoder.bind(params["decoder"])
        return decoder(latents, inputs, owner["words"][:words])

    def loss_mask(self, inputs: Inputs) -> Array:
        """[B, L, 1]: the masked tokens."""
        return inputs.hidden[..., None]

    def loss(self, params: Params, inputs: Inputs) -> Array:
        """[B] label-smoothed cross-entropy, mean over the masked tokens of each image."""
        logits = self.decode(params, self.encode(params, inputs), inputs)
        return self._loss(logits, inputs)

    def training_loss(self, params: Params, inputs: Inputs) -> tuple[Array, Metrics]:
        """Mean of `loss`, and the share of masked tokens that are guessed right."""
        logits = self.decode(params, self.encode(params, inputs), inputs)
        right = (jnp.argmax(logits, axis=-1) == inputs.target) & inputs.hidden
        accuracy = jnp.sum(right) / jnp.maximum(jnp.sum(inputs.hidden), 1)
        return jnp.mean(self._loss(logits, inputs)), {"token_accuracy": accuracy}

    def predict(self, params: Params, tokens: Array, opened: Array) -> Array:
        """[B, L, codes] logits for ids with the mask token where `opened`; nothing is dropped."""
        nothing = jnp.zeros_like(opened)
        inputs = arrange(tokens, opened, nothing, self.length, True, tokens)
        return self.decode(params, self.encode(params, inputs), inputs)

    def _loss(self, logits: Array, inputs: Inputs) -> Array:
        logp = jax.nn.log_softmax(logits)
        own = jnp.take_along_axis(logp, inputs.target[..., None], axis=-1)[..., 0]
        each = -(1 - SMOOTHING) * own - SMOOTHING * jnp.mean(logp, axis=-1)
        return jnp.sum(each * inputs.hidden, 1) / jnp.maximum(jnp.sum(inputs.hidden, 1), 1)

    def tokenize(self, params: Params, images: Array) -> Array:
        """[B, H, W, 3] in [0, 1] -> [B, h, w] int32."""
        return self.tokenizer.tokenize(params["tokenizer"], images)

    def detokenize(self, params: Params, tokens: Array) -> Array:
        """[B, h, w] int32 -> [B, H, W, 3] float32, not clipped."""
        return self.tokenizer.detokenize(params["tokenizer"], tokens)

    def _tokens(self, params: Params, images: Array) -> Array:
        given = jnp.issubdtype(images.dtype, jnp.integer)
        tokens = images.astype(jnp.int32) if given else self.tokenize(params, images)
        return tokens.reshape(-1, self.length)

    def _hidden(self, mask: Array, margin: int = 0) -> Array:
        """[B, L] bool: tokens that overlap a hidden cell, and those up to `margin` away."""
        return blur.grow(pixels.coarse(mask, self.grid), margin).reshape(-1, self.length)

    def reconstruct(
        self,
        params: Params,
        images: Array,
        mask: Array,
        rng: Array,
        visible: tuple[int, int] | None = None,
    ) -> Array:
        """Sampled tokens, decoded and pasted: into the hole, or as `composite` says.

        mask may be finer than the grid. [B, H, W, 3] in [0, 1].
        """
        del visible  # nothing is dropped
        hole = pixels.hidden(mask, self.image_size)
        filled = jnp.where(hole, vqgan.FILL, images)
        tokens = self._tokens(params, filled)
        tokens = parallel_decoding.decode(
            tokens,
            self._hidden(mask, self.margin),
            functools.partial(self.predict, params),
            rng,
            mask_id=self.codes + MASK,
            steps=self.steps,
            temperature=self.temperature,
        )
        made = self.detokenize(params, tokens.reshape(-1, *self.grid))
        if self.composite == "exact":
            return pixels.paste(images, made, mask)
        side = self.image_size // self.grid[0]
        wide = blur.grow(hole[..., 0], round(side * 14 / 16))
        weight = blur.gaussian(wide, side * 7 / 16)[..., None]
        return jnp.clip(weight * made + (1 - weight) * filled, 0.0, 1.0)


def build(
    *,
    size: str = "base",
    image_size: int = 256,
    tokenizer: Mapping[str, object] = PUBLISHED,
    tokenizer_digest: str = "",
    tying: str = "frozen",
    drop: float = 0.5,
    steps: int = 20,
    temperature: float = 6.0,
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
    """A MAGE of a known size, any number of which (0 = as known) can be changed.

    tokenizer: arguments of models/vqgan.py, which computes in float32 always. tokenizer_digest:
    refuse weights with another tokenizer ("" = any). steps, temperature, margin (in tokens) and
    composite ("exact": visible pixels as given; "blurred": blended over a soft edge with the filled
    image, as the released evaluation does) belong to `reconstruct`.
    """
    if size not in SIZES:
        raise unknown("MAGE size", size, SIZES)
    if tying not in TYINGS:
        raise unknown("tying", tying, TYINGS)
    if composite not in COMPOSITES:
        raise unknown("composite", composite, COMPOSITES)
    if remat and not scan:
        raise ConfigError("model.args.remat needs model.args.scan=True.")
    if not 0 <= drop <= 1 or steps < 1 or temperature < 0 or margin < 0:
        raise ConfigError(
            "MAGE needs 0 <= drop <= 1, steps >= 1, temperature >= 0 and margin >= 0, not "
            f"drop={drop}, steps={steps}, temperature={temperature}, margin={margin}."
        )
    _check_tokenizer(tokenizer)
    given = dict(width=width, depth=depth, heads=heads, decoder_width=decoder_width)
    given |= dict(decoder_depth=decoder_depth, decoder_heads=decoder_heads)
    return MAGE(
        size=dataclasses.replace(SIZES[size], **{k: v for k, v in given.items() if v}),
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


def _check_tokenizer(args: Mapping[str, object]) -> None:
    check_args(vqgan.build, args, "model.args.tokenizer")
    if fixed := args.keys() - PUBLISHED.keys():
        raise ConfigError(
            f"model.args.tokenizer does not take {', '.join(sorted(fixed))} in a MAGE, whose image "
            "size it shares and which does not train it."
        )


def _rank(values: Array) -> Array:
    return jnp.argsort(jnp.argsort(values, axis=1), axis=1)
