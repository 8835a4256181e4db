"""Convolutional VQ-GAN: images to a grid of codes and back (Esser et al., CVPR 2021).

T  fill the hidden cells with the mean colour of ImageNet
E  a convolutional encoder, one latent for every 2^n x 2^n pixels
D  replace each latent by its nearest code (gradients pass straight through), decode by convolutions

loss = mean |x' - x|  +  |sg(z) - e|^2 + 0.25 |z - sg(e)|^2                      for every example

As in MaskGIT (Chang et al., CVPR 2022), whose JAX weights the released unlearning code loads: 1,024
codes of 256 channels, 16x16 tokens of a 256x256 image, no attention, average pooling on the way
down, input in [0, 1] without normalisation. It is the tokenizer of models/mage.py, and a model that
can be unlearned by itself: then E is trained, and the codebook and D are frozen.

Released quirk kept, since published weights depend on it: where a residual block changes the number
of channels, its 1x1 shortcut sees the output of the block's convolutions and not its input, so that
the input is not added at all.

Training (methods/pretrain.py) adds terms of the whole batch: `revive` pulls unused codes back to
the data, `adversarial` weighs a patch discriminator, which lives beside the decoder and is trained
in the same step with its own loss. Departure from Esser et al.: no perceptual (LPIPS) term, since
it needs the weights of another network.
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
from l2l_jax.models.layers import critic, quantize
from l2l_jax.models.layers.conv import Decoder, Encoder, Size
from l2l_jax.models.layers.vit import Dtype
from l2l_jax.types import Array, Metrics, Params

FILL = np.array([0.485, 0.456, 0.406], np.float32)  # what stands in a hole, ImageNet's mean colour

SIZES = {
    "published": Size(128, (1, 1, 2, 2, 4), 2, 1024, 256),
    "small": Size(16, (1, 2, 4), 1, 256, 32, groups=8),  # the bundled one, 8x8 tokens of 32x32
    "test": Size(8, (1, 1), 1, 16, 8, groups=4),
}
SMALLEST = dict(size="test", image_size=16)  # what tests build


@flax.struct.dataclass
class Inputs:
    """What T makes."""

    images: Array  # [B, H, W, 3] in [0, 1], the hole filled
    target: Array  # [B, H, W, 3] in [0, 1]


@dataclasses.dataclass(frozen=True)
class VQGAN:
    """The model as `ImageToImage`. Groups: encoder; decoder, with the codebook in it."""

    size: Size
    image_size: int
    revive: float
    adversarial: float
    dtype: Dtype
    takes_tokens = False  # its tokenizer is what is trained
    shows_hidden = False
    sampling = "one pass"

    @property
    def grid(self) -> tuple[int, int]:
        return (self.image_size >> (len(self.size.multipliers) - 1),) * 2

    @property
    def codes(self) -> int:
        return self.size.codes

    @property
    def identity(self) -> dict[str, object]:
        """What weights belong to. The image size is not in it: convolutions take any."""
        return dataclasses.asdict(self.size)

    def inferred_args(self, params: Params) -> dict[str, object]:
        """What parameters tell by themselves of `identity`: nothing."""
        del params
        return {}

    @functools.cached_property
    def encoder(self) -> Pure:
        return Pure(lambda rngs: Encoder(self.size, self.dtype, rngs))

    @functools.cached_property
    def decoder(self) -> Pure:
        return Pure(lambda rngs: Decoder(self.size, self.adversarial > 0, self.dtype, rngs))

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
        """[B, h, w, C] float32, before quantisation."""
        return self.encoder.bind(params["encoder"])(inputs.images)

    def decode(self, params: Params, latents: Array, inputs: Inputs) -> Array:
        """[B, H, W, 3] float32 around [0, 1], of the codes nearest to the latents."""
        del inputs
        decoder = self.decoder.bind(params["decoder"])
        return decoder(quantize.straight_through(latents, _quantized(decoder, latents)))

    def loss_mask(self, inputs: Inputs) -> Array:
        """All pixels."""
        return jnp.ones((len(inputs.images), 1, 1, 1), bool)

    def loss(self, params: Params, inputs: Inputs) -> Array:
        """[B] mean absolute error of the pixels, and the two terms of the codebook."""
        z = self.encode(params, inputs)
        decoder = self.decoder.bind(params["decoder"])
        quantized = _quantized(decoder, z)
        made = decoder(quantize.straight_through(z, quantized))
        error = jnp.mean(jnp.abs(made - inputs.target), axis=(1, 2, 3))
        return error + quantize.commitment(z, quantized)

    def training_loss(self, params: Params, inputs: Inputs) -> tuple[Array, Metrics]:
        """Mean of `loss`, `revive` times the pull on unused codes, and the adversarial terms."""
        z = self.encode(params, inputs)
        decoder = self.decoder.bind(params["decoder"])
        codebook = decoder.codebook[...]
        tokens = quantize.nearest(z, codebook)
        features = decoder.features(quantize.straight_through(z, codebook[tokens]))
        made = decoder.conv_out(features).astype(jnp.float32)
        error = jnp.mean(jnp.abs(made - inputs.target))
        total = error + jnp.mean(quantize.commitment(z, codebook[tokens]))
        metrics = {"pixel_error": error, **quantize.about_usage(tokens, self.codes)}
        if self.revive:
            total += self.revive * quantize.revival(z, codebook)
        if self.adversarial:
            fooling, judging, weight = _adversarial(decoder, features, made, inputs.target)
            total += self.adversarial * weight * fooling + judging
            metrics |= {"fooling": fooling, "critic": judging, "adversarial_weight": weight}
        return total, metrics

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

    def tokenize(self, params: Params, images: Array) -> Array:
        """[B, H, W, 3] in [0, 1] -> [B, h, w] int32, codes."""
        z = self.encoder.bind(params["encoder"])(images)
        return quantize.nearest(z, params["decoder"]["codebook"])

    def detokenize(self, params: Params, tokens: Array) -> Array:
        """[B, h, w] int32 -> [B, H, W, 3] float32, not clipped."""
        decoder = self.decoder.bind(params["decoder"])
        return decoder(decoder.codebook[...][tokens])


def _quantized(decoder: Decoder, z: Array) -> Array:
    codebook = decoder.codebook[...]
    return codebook[quantize.nearest(z, codebook)]


def _adversarial(
    decoder: Decoder, features: Array, made: Array, real: Array
) -> tuple[Array, Array, Array]:
    """(what the generator minimises, what the critic minimises, the weight of the first).

    The first has no gradient to the critic and the second none to the generator, so that one
    backward pass of their sum trains both.
    """
    fixed = jax.lax.stop_gradient
    graph, weights = nnx.split(decoder.critic)
    frozen = nnx.merge(graph, fixed(weights))
    last, kernel = nnx.split(decoder.conv_out)

    def of_last(term: str, kernel: nnx.State) -> Array:
        made = nnx.merge(last, kernel)(fixed(features)).astype(jnp.float32)
        return jnp.mean(jnp.abs(made - real)) if term == "pixels" else -jnp.mean(frozen(made))

    slopes = [jax.grad(functools.partial(of_last, t))(fixed(kernel)) for t in ("pixels", "gan")]
    weight = critic.balance(*(slope["kernel"][...] for slope in slopes))
    judging = critic.hinge(decoder.critic(real), decoder.critic(fixed(made)))
    return -jnp.mean(frozen(made)), judging, weight


def build(
    *,
    size: str = "published",
    image_size: int = 256,
    revive: float = 1.0,
    adversarial: float = 0.0,
    dtype: str = "auto",
    width: int = 0,
    multipliers: tuple[int, ...] = (),
    blocks: int = 0,
    codes: int = 0,
    code_width: int = 0,
    groups: int = 0,
) -> VQGAN:
    """A VQ-GAN of a known size, any number of which (0 = as known) can be changed.

    revive and adversarial weigh terms of training (0 = off; the published adversarial weight is
    0.8). dtype is that of the computation: "float32", "bfloat16", or "auto" (bfloat16 on
    accelerators).
    """
    if size not in SIZES:
        raise unknown("VQ-GAN size", size, SIZES)
    given = dict(width=width, blocks=blocks, codes=codes, code_width=code_width, groups=groups)
    given["multipliers"] = tuple(multipliers)
    chosen = dataclasses.replace(SIZES[size], **{k: v for k, v in given.items() if v})
    if chosen.codes > 1 << 16:
        raise ConfigError(f"A codebook has at most 65,536 codes, not {chosen.codes}.")
    check_size(image_size, 1 << (len(chosen.multipliers) - 1))
    if any(chosen.width * m % chosen.groups for m in chosen.multipliers):
        raise ConfigError(
            f"Widths {[chosen.width * m for m in chosen.multipliers]} cannot be split into "
            f"{chosen.groups} groups; change model.args.width, multipliers or groups."
        )
    return VQGAN(chosen, image_size, revive, adversarial, compute_dtype(dtype))


def check_size(image_size: int, cell: int) -> None:
    """ConfigError unless the image can be cut into at least two tokens of `cell` pixels a side."""
    if image_size % cell or image_size < 2 * cell:
        near = max(image_size - image_size % cell, 2 * cell)
        raise ConfigError(
            f"An image of {image_size} pixels cannot be cut into tokens of {cell} pixels; "
            f"try image_size={near} or {near + cell}."
        )
