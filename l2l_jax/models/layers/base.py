"""What models share: defaults of the interface `ImageToImage`, and checks of their dimensions."""

import abc
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float

from l2l_jax.lib import pixels
from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.lib.nnx_pure import PureModule
from l2l_jax.types import (
    Activations,
    Array,
    Images,
    Mask,
    Metrics,
    Params,
    PerImage,
    Rng,
    Scalar,
    Visible,
)

S = TypeVar("S", bound=Any)  # a frozen dataclass of dimensions


@dataclasses.dataclass(frozen=True)
class Model(abc.ABC):
    """A model of pixels that completes an image in one pass. Groups: encoder, decoder."""

    takes_tokens = False
    shows_hidden = False

    @property
    def sampling(self) -> str:
        return "one pass"

    @abc.abstractmethod
    def make_encoder(self, rngs: nnx.Rngs) -> nnx.Module:
        """The module of the group "encoder"."""

    @abc.abstractmethod
    def make_decoder(self, rngs: nnx.Rngs) -> nnx.Module:
        """The module of the group "decoder"."""

    @functools.cached_property
    def encoder(self) -> PureModule:
        return PureModule(self.make_encoder)

    @functools.cached_property
    def decoder(self) -> PureModule:
        return PureModule(self.make_decoder)

    @functools.cached_property
    def template(self) -> Params:
        return jax.eval_shape(self.init, jax.random.key(0))

    @functools.cached_property
    def canonical(self) -> Params:
        scanned = getattr(self, "scan", False)
        return (dataclasses.replace(self, scan=False) if scanned else self).template

    def init(self, rng: Rng) -> Params:
        encoder, decoder = jax.random.split(rng)
        return {"encoder": self.encoder.init(encoder), "decoder": self.decoder.init(decoder)}

    def inferred_args(self, params: Params) -> dict[str, Any]:
        """Nothing: no argument can be read off the parameters."""
        del params
        return {}

    def tokenize(self, params: Params, images: Images) -> Array:
        """The images themselves."""
        del params
        return images

    @abc.abstractmethod
    def corrupt(
        self,
        params: Params,
        images: Array,
        mask: Mask,
        rng: Rng,
        targets: Array | None = None,
        visible: Visible | None = None,
    ) -> Any:
        """T: the inputs of the encoder and the decoder."""

    @abc.abstractmethod
    def encode(self, params: Params, inputs: Any) -> Any:
        """E: the latents."""

    @abc.abstractmethod
    def decode(self, params: Params, latents: Any, inputs: Any) -> Array:
        """D: the outputs."""

    @abc.abstractmethod
    def activations(self, params: Params, inputs: Any) -> Activations:
        """What every block of E and D returns, averaged over positions."""

    def predict(self, params: Params, inputs: Any) -> Array:
        """D(E(inputs))."""
        return self.decode(params, self.encode(params, inputs), inputs)

    @abc.abstractmethod
    def loss(self, params: Params, inputs: Any) -> PerImage:
        """[B] the training loss of each image."""

    def training_loss(self, params: Params, inputs: Any) -> tuple[Scalar, Metrics]:
        """(mean of `loss`, no metrics)."""
        return jnp.mean(self.loss(params, inputs)), {}

    def own_loss(self, params: Params, inputs: Any) -> Scalar:
        """0: every term of `loss` compares with a target."""
        del params, inputs
        return jnp.zeros(())

    def to_images(self, outputs: Array) -> Images:
        """[B, H, W, 3] around [0, 1]: the images that the outputs stand for."""
        return outputs

    def reconstruct(
        self,
        params: Params,
        images: Images,
        mask: Mask,
        rng: Rng,
        visible: Visible | None = None,
    ) -> Images:
        """[B, H, W, 3] in [0, 1]: decoded pixels where hidden, the given pixels elsewhere."""
        inputs = self.corrupt(params, images, mask, rng, visible=visible)
        return pixels.paste(images, self.to_images(self.predict(params, inputs)), mask)


@no_type_check  # JAX also builds it from objects that are no arrays
@flax.struct.dataclass
class FilledImages:
    """The inputs of a `FillingModel`."""

    images: Array  # [B, H, W, 3] in [0, 1], the hidden cells filled with a constant
    target: Array  # [B, H, W, 3] in [0, 1]


class FillingModel(Model):
    """A model whose T fills the hidden cells with a constant and whose loss counts all pixels."""

    image_size: int
    fill: ClassVar[float | np.ndarray]  # value of hidden pixels: a number, or one for each colour

    def corrupt(
        self,
        params: Params,
        images: Images,
        mask: Mask,
        rng: Rng,
        targets: Images | None = None,
        visible: Visible | None = None,
    ) -> FilledImages:
        """Fills the hidden cells."""
        del params, rng, visible  # this T has no parameters, no randomness, no shorter path
        filled = jnp.where(pixels.hidden_pixels(mask, self.image_size), self.fill, images)
        return FilledImages(filled, images if targets is None else targets)

    def loss_mask(self, inputs: FilledImages) -> Bool[Array, "B 1 1 1"]:
        """True: all pixels count."""
        return jnp.ones((len(inputs.images), 1, 1, 1), bool)


def named_activations(
    encoder: Sequence[Float[Array, "B _"]], decoder: Sequence[Float[Array, "B _"]]
) -> Activations:
    """{"encoder.0": ..., "decoder.0": ...}: what the blocks of E and D return, in order."""
    sides = {"encoder": encoder, "decoder": decoder}
    return {f"{name}.{at}": x for name, blocks in sides.items() for at, x in enumerate(blocks)}


def mean_map(x: Float[Array, "B h w C"]) -> Float[Array, "B C"]:
    """[B, C] float32: the mean of a feature map over its positions."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


def masked_mean(values: Float[Array, "B L"], mask: Bool[Array, "B L"]) -> PerImage:
    """[B] the mean of `values` where mask is True; 0 if it is True nowhere."""
    return jnp.sum(values * mask, axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1)


def choose_size(model: str, sizes: Mapping[str, S], name: str, **dimensions: object) -> S:
    """The size with this name; a dimension that is not 0 or () replaces the one in the table.

    ConfigError if there is no such size.
    """
    if name not in sizes:
        raise unknown_name(f"{model} size", name, sizes)
    overrides = {key: value for key, value in dimensions.items() if value}
    return dataclasses.replace(sizes[name], **overrides)


def check_divides(
    image_size: int, part: int, action: str, *, least: int = 1, step: int = 0, advice: str = ""
) -> None:
    """ConfigError unless image_size is a multiple of `part`, and at least `least` times as large.

    action, advice: for the message. step: suggested sizes are multiples of it (0: of part).
    """
    if part >= 1 and image_size % part == 0 and image_size >= least * part:
        return
    step = max(step or part, 1)
    near = max(image_size - image_size % step, least * step)
    raise ConfigError(
        f"An image of {image_size} pixels cannot be {action}; try image_size={near} or "
        f"{near + step}{advice}."
    )


def check_groups(widths: Sequence[int], groups: int, advice: str) -> None:
    """ConfigError unless GroupNorm can split all widths into `groups` groups."""
    if bad := [width for width in widths if width % groups]:
        raise ConfigError(f"Widths {bad} cannot be split into {groups} groups; change {advice}.")
