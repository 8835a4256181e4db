"""Convolutional VQ-GAN: images to a grid of codes and back (Esser et al., CVPR 2021).

T  fill the hidden cells with the mean colour of ImageNet
E  a convolutional encoder, one latent for every 2^n x 2^n pixels
D  replace each latent by its nearest code (gradients pass straight through), decode by convolutions

loss = mean |x' - x|  +  |sg(z) - e|^2 + 0.25 |z - sg(e)|^2                      for every image

As in MaskGIT (Chang et al., CVPR 2022), whose JAX weights the released unlearning code loads: 1,024
codes of 256 channels, 16x16 tokens of a 256x256 image, no attention, average pooling on the way
down, input in [0, 1] without normalisation. It is the tokenizer of models/mage.py, and also a
model that can be unlearned by itself: then E is trained, and the codebook and D are frozen.

Released quirk kept, since published weights depend on it: where a residual block changes the number
of channels, its 1x1 shortcut is applied to the output of the block's convolutions instead of its
input, so the input is not added at all.

Training (methods/pretrain.py) adds terms of the whole batch: `revive` pulls unused codes back to
the data, `adversarial` weighs a patch discriminator, which is part of the decoder's group and is
trained in the same step with its own loss. Departure from Esser et al.: no perceptual (LPIPS) term,
since it needs the weights of another network.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Integer

from l2l_jax.lib import pixels
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.precision import compute_dtype
from l2l_jax.models.layers import critic, quantize
from l2l_jax.models.layers.base import (
    FilledImages,
    FillingModel,
    check_divides,
    check_groups,
    choose_size,
    mean_map,
    named_activations,
)
from l2l_jax.models.layers.conv import Decoder, Encoder, Size
from l2l_jax.models.layers.vit import Dtype
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
    Scalar,
    Tokens,
    Visible,
)

FILL = np.array(
    [0.485, 0.456, 0.406], np.float32
)  # value of hidden pixels: mean colour of ImageNet

SIZES = {
    "published": Size(128, (1, 1, 2, 2, 4), 2, 1024, 256),
    "small": Size(
        16, (1, 2, 4), 1, 256, 32, groups=8
    ),  # the bundled one, 8x8 tokens for 32x32 pixels
    "test": Size(8, (1, 1), 1, 16, 8, groups=4),
}
SMALLEST = dict(size="test", image_size=16)
BOUNDS = {
    "image_size": PIXEL_BOUNDS,
    "revive": Bounds(0),
    "adversarial": Bounds(0),
    "width": WIDTH_BOUNDS,
    "multipliers": Bounds(1, 1024),
    "blocks": DEPTH_BOUNDS,
    "codes": Bounds(0, 1 << 16),
    "code_width": WIDTH_BOUNDS,
    "groups": WIDTH_BOUNDS,
}


Inputs = FilledImages
Maps = Float[Array, "B h w C"]


@dataclasses.dataclass(frozen=True)
class VQGAN(FillingModel):
    """The model as `TokenModel`. Groups: encoder; decoder, which contains the codebook.

    takes_tokens is False, since the tokenizer itself is trained.
    """

    size: Size
    image_size: int
    revive: int | float
    adversarial: int | float
    dtype: Dtype
    fill = FILL

    @property
    def grid(self) -> tuple[int, int]:
        side = self.image_size >> (len(self.size.multipliers) - 1)
        return side, side

    @property
    def codes(self) -> int:
        return self.size.codes

    @property
    def identity(self) -> dict[str, Any]:
        """The dimensions; the image size is not part of it: convolutions fit any."""
        return dataclasses.asdict(self.size)

    def make_encoder(self, rngs: nnx.Rngs) -> Encoder:
        return Encoder(self.size, self.dtype, rngs)

    def make_decoder(self, rngs: nnx.Rngs) -> Decoder:
        return Decoder(self.size, self.adversarial > 0, self.dtype, rngs)

    def encode(self, params: Params, inputs: Inputs) -> Maps:
        """[B, h, w, C] float32, before quantisation."""
        return self.encoder.bind(params["encoder"])(inputs.images)

    def decode(self, params: Params, latents: Maps, inputs: Inputs) -> Images:
        """[B, H, W, 3] float32 around [0, 1], decoded from the codes nearest to the latents."""
        del inputs
        decoder = self._bound_decoder(params)
        return decoder(quantize.straight_through(latents, _quantized(decoder, latents)))

    def activations(self, params: Params, inputs: Inputs) -> Activations:
        maps = self.encoder.bind(params["encoder"]).maps(inputs.images)
        codes = _quantized(decoder := self._bound_decoder(params), self.encode(params, inputs))
        decoded = decoder.maps(codes)
        return named_activations([mean_map(x) for x in maps], [mean_map(x) for x in decoded])

    def _bound_decoder(self, params: Params) -> Decoder:
        return cast(Decoder, self.decoder.bind(params["decoder"]))

    def loss(self, params: Params, inputs: Inputs) -> PerImage:
        """[B] mean absolute error of the pixels, plus the two terms of the codebook."""
        z = self.encode(params, inputs)
        decoder = self._bound_decoder(params)
        quantized = _quantized(decoder, z)
        decoded = decoder(quantize.straight_through(z, quantized))
        error = jnp.mean(jnp.abs(decoded - inputs.target), axis=(1, 2, 3))
        return error + quantize.commitment(z, quantized)

    def own_loss(self, params: Params, inputs: Inputs) -> Scalar:
        """The mean of the two terms of the codebook, and `revive` times the pull on unused codes.

        An output that is to match another one gives the codebook no gradient: it passes straight
        through to the latents.
        """
        z, decoder = self.encode(params, inputs), self._bound_decoder(params)
        total = jnp.mean(quantize.commitment(z, _quantized(decoder, z)))
        pull = quantize.revival(z, decoder.table) if self.revive else 0.0
        return total + self.revive * pull

    def training_loss(self, params: Params, inputs: Inputs) -> tuple[Scalar, Metrics]:
        """Mean of `loss`, `revive` times the pull on unused codes, and the adversarial terms."""
        z = self.encode(params, inputs)
        decoder = self._bound_decoder(params)
        codebook = decoder.table
        tokens = quantize.nearest(z, codebook)
        features = decoder.features(quantize.straight_through(z, codebook[tokens]))
        decoded = decoder.conv_out(features).astype(jnp.float32)
        error = jnp.mean(jnp.abs(decoded - inputs.target))
        total = error + jnp.mean(quantize.commitment(z, codebook[tokens]))
        metrics = {"pixel_error": error, **quantize.usage_metrics(tokens, self.codes)}
        if self.revive:
            total += self.revive * quantize.revival(z, codebook)
        if decoder.critic is not None:
            terms = _adversarial(decoder, decoder.critic, features, decoded, inputs.target)
            fooling, judging, weight = terms
            total += self.adversarial * weight * fooling + judging
            metrics |= {"fooling": fooling, "critic": judging, "adversarial_weight": weight}
        return total, metrics

    def tokenize(self, params: Params, images: Images) -> Tokens:
        """[B, H, W, 3] in [0, 1] -> [B, h, w] int32, codes."""
        z = self.encoder.bind(params["encoder"])(images)
        return quantize.nearest(z, self._bound_decoder(params).table)

    def unseen(self, mask: Mask, visible: Visible | None = None) -> Bool[Array, "B h w"]:
        """[B, h, w]: cells that `reconstruct` hides from the model: those that overlap the hole."""
        del visible
        return pixels.coarsen_mask(mask, self.grid)

    def detokenize(self, params: Params, tokens: Integer[Array, "B h w"]) -> Images:
        """[B, h, w] int32 -> [B, H, W, 3] float32, not clipped."""
        decoder = self._bound_decoder(params)
        return decoder(decoder.table[tokens])


def _quantized(decoder: Decoder, z: Maps) -> Maps:
    """The code nearest to each latent."""
    codebook = decoder.table
    return codebook[quantize.nearest(z, codebook)]


def _adversarial(
    decoder: Decoder, discriminator: critic.Critic, features: Maps, decoded: Images, real: Images
) -> tuple[Scalar, Scalar, Scalar]:
    """(loss of the generator, loss of the critic, adaptive weight of the generator's loss).

    The first has no gradient to the critic and the second none to the generator, so that one
    backward pass of their sum trains both.
    """
    fixed = jax.lax.stop_gradient
    graph, weights = nnx.split(discriminator)
    frozen = nnx.merge(graph, fixed(weights))
    last, kernel = nnx.split(decoder.conv_out)

    def loss_of_last_layer(term: str, kernel: nnx.State) -> Scalar:
        decoded = nnx.merge(last, kernel)(fixed(features)).astype(jnp.float32)
        return jnp.mean(jnp.abs(decoded - real)) if term == "pixels" else -jnp.mean(frozen(decoded))

    slopes = [
        jax.grad(functools.partial(loss_of_last_layer, term))(fixed(kernel))
        for term in ("pixels", "gan")
    ]
    weight = critic.balance(*(slope["kernel"][...] for slope in slopes))
    judging = critic.hinge(discriminator(real), discriminator(fixed(decoded)))
    return -jnp.mean(frozen(decoded)), judging, weight


def build(
    *,
    size: str = "published",
    image_size: int = 256,
    revive: int | float = 1.0,
    adversarial: int | float = 0.0,
    dtype: str = "auto",
    width: int = 0,
    multipliers: Sequence[int] = (),
    blocks: int = 0,
    codes: int = 0,
    code_width: int = 0,
    groups: int = 0,
) -> VQGAN:
    """Builds a named size; any dimension can be overridden (0 or () keeps its value).

    revive and adversarial weigh terms of training (0 = off; the published adversarial weight is
    0.8). dtype is that of the computation: "float32", "bfloat16", or "auto" (bfloat16 on
    accelerators). ConfigError for dimensions that do not divide.
    """
    dimensions = dict(width=width, blocks=blocks, codes=codes, code_width=code_width, groups=groups)
    chosen = choose_size("VQ-GAN", SIZES, size, multipliers=tuple(multipliers), **dimensions)
    if chosen.codes > 1 << 16:
        raise ConfigError(f"A codebook has at most 65,536 codes, not {chosen.codes}.")
    cell = 1 << (len(chosen.multipliers) - 1)
    check_divides(image_size, cell, f"cut into tokens of {cell} pixels", least=2)
    widths = [chosen.width * multiplier for multiplier in chosen.multipliers]
    check_groups(widths, chosen.groups, "model.args.width, multipliers or groups")
    return VQGAN(chosen, image_size, revive, adversarial, compute_dtype(dtype))
