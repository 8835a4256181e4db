"""Palette, a conditional diffusion model that in-paints (Saharia et al., SIGGRAPH 2022).

T  fill the hole with noise (the condition); add noise of one level to the hidden pixels
E  the input blocks and the middle block of a U-Net: every block's feature map
D  the output blocks, which take all these maps and return the noise

loss = mean over hidden pixels of (D(E(T(x))) - epsilon)^2                           for every image

T draws, once for student and teacher, a step t of 1..T-1, gamma between gamma_t-1 and gamma_t, and
epsilon ~ N(0, I): inside the hole y_t = sqrt(gamma) y_0 + sqrt(1 - gamma) epsilon, outside it the
image, all on a scale of [-1, 1]. Unlike that of a masked autoencoder, this E sees the hidden
pixels, under noise; completing an image (`reconstruct`) starts from noise and never sees them.

`targets` are other images that D should produce from the same input. They shift epsilon to the
value that gives y_t from them, by sqrt(gamma / (1 - gamma)) (y_0 - y'). The factor is at most 1:
with more image than noise, y_t itself shows the image, and the loss would grow as 1 / (1 - gamma).

`tying` chooses D's embedding of gamma. "tied" uses E's, as the published weights were trained; then
unlearning E changes D, too. "frozen" gives D its own copy, so that D is truly frozen, as Theorem 1
of Li et al. (ICLR 2024) needs. Published files can be loaded as either.

Sampling. `sampler` is "ddpm", all steps of the schedule with fresh noise in each, or "ddim",
`sample_steps` of them (0: all) without noise. `sample_schedule` is the schedule of sampling, for
instance ("linear", 2000, 1e-4, 0.09), or () for the schedule of training. What the released
evaluation did: its config names the former for testing, but the buffers of the checkpoint, loaded
after the schedule was set, overwrite it, so that all its images were sampled with the schedule of
training, ("linear", 2000, 1e-6, 0.01). Both are 2,000 DDPM steps.

Released quirk kept: the attention factors are compared with the downsampling factor of a map, not
with its side, so the published network (whose config lists 16) has attention in its middle only.
Departures: no dropout; the loss is averaged over the hole of each image instead of all pixels.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int

from l2l_jax.lib import pixels
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.lib.nnx_pure import PureModule
from l2l_jax.lib.precision import compute_dtype, full_precision
from l2l_jax.models.layers import denoising, unet
from l2l_jax.models.layers.base import (
    Model,
    check_divides,
    choose_size,
    mean_map,
    named_activations,
)
from l2l_jax.models.layers.negation import Negation
from l2l_jax.models.layers.noise_schedule import BOUNDLESS, Schedule
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
    Params,
    PerImage,
    Rng,
    Scalar,
    Visible,
)

SIZES = {
    "published": unet.Size(64, (1, 2, 4, 8), 2),  # 62,641,347 parameters, 256x256 pixels
    "small": unet.Size(32, (1, 1, 2), 1, (), 32, 8),  # 935,171 parameters, 32x32 pixels
    "test": unet.Size(8, (1,), 1, (), 8, 4),
}
TYINGS, SAMPLERS = ("tied", "frozen"), ("ddim", "ddpm")
SAMPLE_STEPS = 50  # of DDIM, by default
RELEASED_TEST = ("linear", 2000, 1e-4, 0.09)  # in the released config, without effect
SMALLEST = dict(size="test", image_size=16, cell=4, steps=10, beta_end=0.5, sample_steps=2)
BOUNDS = {
    "image_size": PIXEL_BOUNDS,
    "cell": PIXEL_BOUNDS,
    "steps": Bounds(2, 10**6),
    "beta_start": Bounds(0, 1),
    "beta_end": Bounds(0, 1),
    "sample_steps": Bounds(0, 10**6),
    "width": WIDTH_BOUNDS,
    "multipliers": Bounds(1, 1024),
    "blocks": DEPTH_BOUNDS,
    "attention": PIXEL_BOUNDS,
    "head": WIDTH_BOUNDS,
    "groups": WIDTH_BOUNDS,
    "negation": Bounds(0, 10**6),
}


@no_type_check  # JAX also builds it from objects that are no arrays
@flax.struct.dataclass
class Inputs:
    """What T returns. Images are around [-1, 1]."""

    condition: Array  # [B, H, W, 3] the image with noise in its hole
    noisy: Array  # [B, H, W, 3] y_t in the hole, the image elsewhere
    hidden: Array  # [B, H, W, 1] bool
    gamma: Array  # [B] fraction of the image's variance in y_t
    epsilon: Array  # [B, H, W, 3] the noise that D should return in the hole


@dataclasses.dataclass(frozen=True)
class Diffusion(Model):
    """The model as `NoisyModel`. Groups: encoder, decoder."""

    size: unet.Size
    image_size: int
    cell: int
    schedule: Schedule  # of training
    sample_schedule: Schedule
    sampler: str
    sample_steps: int
    tying: str
    remat: bool
    dtype: Dtype
    negation: Negation
    shows_hidden = True

    @property
    def grid(self) -> tuple[int, int]:
        side = self.image_size // self.cell
        return side, side

    @property
    def identity(self) -> dict[str, Any]:
        """The dimensions and the training schedule. Convolutions fit any image size and cell."""
        schedule = self.schedule
        name = "linear" if schedule.name == "const" else schedule.name  # const: linear, end to end
        named: dict[str, Any] = {"schedule": name, "steps": schedule.steps}
        bounds = {"beta_start": schedule.first, "beta_end": schedule.end}
        named |= dict.fromkeys(bounds, "") if schedule.name in BOUNDLESS else bounds
        return dataclasses.asdict(self.size) | named

    def make_encoder(self, rngs: nnx.Rngs) -> unet.Encoder:
        return unet.Encoder(self.size, self.dtype, self.remat, rngs)

    def make_decoder(self, rngs: nnx.Rngs) -> unet.Decoder:
        return unet.Decoder(self.size, self.tying == "frozen", self.dtype, self.remat, rngs)

    @functools.cached_property
    def embedding(self) -> PureModule:
        return PureModule(lambda rngs: unet.Embedding(unet.Maker(self.size, self.dtype, rngs)))

    @property
    def sampling(self) -> str:
        schedule = self.sample_schedule
        every_step = self.sampler == "ddpm" or not self.sample_steps
        count = schedule.steps if every_step else self.sample_steps
        return f"{self.sampler}, {count} of {schedule.steps} steps, {schedule.description}"

    def init(self, rng: Rng) -> Params:
        params = super().init(rng)
        if self.tying == "frozen":
            params["decoder"]["embed"] = jax.tree.map(jnp.copy, params["encoder"]["embed"])
        return params | self.negation.empty(self.image_size)

    def corrupt(
        self,
        params: Params,
        images: Images,
        mask: Mask,
        rng: Rng,
        targets: Images | None = None,
        visible: Visible | None = None,
    ) -> Inputs:
        """Draws a noise level and noise, and hides the hole under it."""
        del params, visible  # this T has no parameters and no shorter path
        b, schedule = images.shape[0], jnp.asarray(self.schedule.gammas)
        t = jax.random.randint(rngs.fold(rng, "t"), (b,), 1, self.schedule.steps)
        share = jax.random.uniform(rngs.fold(rng, "share"), (b,))
        gamma = schedule[t - 1] + share * (schedule[t] - schedule[t - 1])
        epsilon = jax.random.normal(rngs.fold(rng, "epsilon"), images.shape)
        fill = jax.random.normal(rngs.fold(rng, "fill"), images.shape)
        return self.noised(images, mask, gamma, epsilon, fill, targets)

    def noised(
        self,
        images: Images,
        mask: Mask,
        gamma: PerImage,
        epsilon: Images,
        fill: Images,
        targets: Images | None = None,
    ) -> Inputs:
        """T with given random values: noise level, noise of y_t, noise that fills the hole."""
        hidden, y = pixels.hidden_pixels(mask, self.image_size), signed(images)
        signal, noise = _scales(gamma)
        noisy = jnp.where(hidden, signal * y + noise * epsilon, y)
        condition = jnp.where(hidden, fill, y)
        if targets is not None:
            epsilon = epsilon + jnp.minimum(signal / noise, 1.0) * (y - signed(targets))
        return Inputs(condition, noisy, hidden, gamma, epsilon)

    def only_noise(self, inputs: Inputs) -> Inputs:
        """The same visible pixels and noise level, with pure noise in the hole: y_t = epsilon.

        The released L2L gives this to the teacher in place of a forget image.
        """
        return dataclasses.replace(
            inputs, noisy=jnp.where(inputs.hidden, inputs.epsilon, inputs.noisy)
        )

    def seen_as(self, inputs: Inputs, noisy: Images) -> Inputs:
        """The same inputs with `noisy` as y_t in the hole, and the epsilon that explains it."""
        _, noise = _scales(inputs.gamma)
        noisy = jnp.where(inputs.hidden, noisy, inputs.noisy)
        epsilon = inputs.epsilon + (noisy - inputs.noisy) / noise
        return dataclasses.replace(inputs, noisy=noisy, epsilon=epsilon)

    def energy(self, inputs: Inputs) -> PerImage:
        """[B] |epsilon|^2 / 2 over the hole: the negative log density of y_t, up to a constant."""
        return jnp.sum(jnp.where(inputs.hidden, inputs.epsilon, 0.0) ** 2, axis=(1, 2, 3)) / 2

    def encode(self, params: Params, inputs: Inputs) -> unet.Maps:
        """The feature map of every input block and of the middle block."""
        encoder = self.encoder.bind(params["encoder"])
        with full_precision(self.dtype):
            return encoder(inputs.condition, inputs.noisy, inputs.gamma)

    def decode(self, params: Params, latents: unet.Maps, inputs: Inputs) -> Images:
        """[B, H, W, 3] float32, the noise; values outside the hole are meaningless."""
        decoder = self.decoder.bind(params["decoder"])
        with full_precision(self.dtype):
            return decoder(latents, self._level(params, inputs))

    def _level(self, params: Params, inputs: Inputs) -> unet.Level:
        """The embedded noise level that D reads."""
        embedding = params["decoder" if self.tying == "frozen" else "encoder"]["embed"]
        return self.embedding.bind(embedding)(inputs.gamma)

    def activations(self, params: Params, inputs: Inputs) -> Activations:
        maps = self.encode(params, inputs)
        decoder = self.decoder.bind(params["decoder"])
        with full_precision(self.dtype):
            decoded = decoder.maps(maps, self._level(params, inputs))
        return named_activations([mean_map(x) for x in maps], [mean_map(x) for x in decoded])

    def loss_mask(self, inputs: Inputs) -> Bool[Array, "B H W 1"]:
        """[B, H, W, 1]: the hole."""
        return inputs.hidden

    def loss(self, params: Params, inputs: Inputs) -> PerImage:
        """[B] mean squared error of the noise over the hidden pixels."""
        squares = (self.predict(params, inputs) - inputs.epsilon) ** 2
        errors = jnp.where(inputs.hidden, squares, 0.0)
        count = jnp.sum(inputs.hidden, axis=(1, 2, 3)) * errors.shape[-1]
        return jnp.sum(errors, axis=(1, 2, 3)) / jnp.maximum(count, 1)

    def reconstruct(
        self,
        params: Params,
        images: Images,
        mask: Mask,
        rng: Rng,
        visible: Visible | None = None,
    ) -> Images:
        """[B, H, W, 3] in [0, 1]: sampled pixels where hidden, the given pixels elsewhere."""
        del visible
        hidden, known = pixels.hidden_pixels(mask, self.image_size), signed(images)
        fill = jax.random.normal(rngs.fold(rng, "fill"), images.shape)
        start = jnp.where(hidden, fill, known)

        def noise(t: Int[Array, ""]) -> Images:
            return jax.random.normal(rngs.fold(rng, "step", t), images.shape)

        sampled = self.sample(params, start, hidden, noise)
        return pixels.paste(images, (sampled + 1) / 2, mask)

    def sample(
        self, params: Params, start: Images, hidden: unet.Hole, noise: denoising.Noise
    ) -> Images:
        """[B, H, W, 3] around [-1, 1].

        start: the image with noise in its hole, which is both the condition and the first y_t.
        """

        def predict(noisy: Images, gamma: Scalar) -> Images:
            inputs = Inputs(start, noisy, hidden, jnp.broadcast_to(gamma, start.shape[:1]), noisy)
            return self.predict(params, inputs)

        schedule = self.sample_schedule
        steered = self.negation.steered(predict, params, hidden)
        if self.sampler == "ddpm":
            return denoising.ddpm(steered, start, start, hidden, schedule, noise)
        steps = self.sample_steps or schedule.steps
        return denoising.ddim(steered, start, start, hidden, schedule, steps)


def signed(images: Images) -> Images:
    """[0, 1] -> [-1, 1]."""
    return images * 2 - 1


def _scales(gamma: PerImage) -> tuple[Float[Array, "B 1 1 1"], Float[Array, "B 1 1 1"]]:
    """(sqrt(gamma), sqrt(1 - gamma)), [B, 1, 1, 1] each; the second never 0."""
    gamma = gamma[:, None, None, None]
    return jnp.sqrt(gamma), jnp.sqrt(jnp.maximum(1 - gamma, 1e-12))


def build(
    *,
    size: str = "published",
    image_size: int = 256,
    cell: int = 16,
    schedule: str = "linear",
    steps: int = 2000,
    beta_start: int | float = 1e-6,
    beta_end: int | float = 1e-2,
    sampler: str = "ddim",
    sample_steps: int = SAMPLE_STEPS,
    sample_schedule: Sequence[Any] = (),
    tying: str = "frozen",
    remat: bool = False,
    dtype: str = "auto",
    width: int = 0,
    multipliers: Sequence[int] = (),
    blocks: int = 0,
    attention: Sequence[int] = (),
    head: int = 0,
    groups: int = 0,
    negation: int = 0,
) -> Diffusion:
    """Builds a named size; any dimension can be overridden (0 or () keeps its value).

    schedule, steps, beta_start, beta_end: of training. sampler, sample_steps, sample_schedule
    (name, steps, first and last beta; () = as trained), tying: see above. cell: side in pixels
    of the cells that masks are drawn on. remat recomputes each block in the backward pass. dtype is
    that of the computation: "float32", "bfloat16", or "auto" (bfloat16 on accelerators). negation:
    images that sampling is steered away from, which the method safe_denoiser stores.
    ConfigError for dimensions that do not divide, unknown names, and too many steps.
    """
    for kind, name, known in (("tying", tying, TYINGS), ("sampler", sampler, SAMPLERS)):
        if name not in known:
            raise unknown_name(kind, name, known)
    dimensions = dict(width=width, blocks=blocks, head=head, groups=groups)
    lists = {"multipliers": multipliers, "attention": attention}
    dimensions |= {key: _as_tuple(key, numbers) for key, numbers in lists.items()}
    chosen = choose_size("diffusion", SIZES, size, **dimensions)
    unet.check(chosen)
    _check(chosen, image_size, cell)
    trained = Schedule(schedule, steps, beta_start, beta_end)
    sampled = _sample_schedule(sample_schedule, trained)
    denoising.check_sampler(sampler, sample_steps, sampled.steps)
    return Diffusion(
        chosen, image_size, cell, trained, sampled, sampler, sample_steps, tying, remat,
        compute_dtype(dtype), Negation(negation),
    )  # fmt: skip


def _sample_schedule(values: Any, trained: Schedule) -> Schedule:
    """The schedule of sampling; ConfigError for anything but four values or none."""
    if not isinstance(values, tuple | list) or len(values) not in (0, 4):
        raise ConfigError(
            "model.args.sample_schedule is (name, steps, first beta, last beta), such as "
            f"{RELEASED_TEST}, or () for the schedule of training, not {values!r}."
        )
    return Schedule(*values) if values else trained


def _as_tuple(key: str, numbers: object) -> tuple[Any, ...]:
    if not isinstance(numbers, tuple | list):
        raise ConfigError(f"model.args.{key} are several numbers, such as (1, 2), not {numbers}.")
    return tuple(numbers)


def _check(size: unet.Size, image_size: int, cell: int) -> None:
    """ConfigError unless the image can be downsampled and cut into cells."""
    if not all(isinstance(n, int) and n > 0 for n in (image_size, cell)):
        raise ConfigError(
            f"image_size={image_size!r} and cell={cell!r} are whole numbers of pixels, 1 or more."
        )
    halved = f"halved {len(size.multipliers) - 1} times, as its multipliers need"
    step = math.lcm(size.downsampling, cell)
    check_divides(image_size, size.downsampling, halved, step=step)
    check_divides(image_size, cell, f"cut into cells of {cell} pixels", step=step)
