"""Palette, a conditional diffusion model that in-paints (Saharia et al., SIGGRAPH 2022).

T  give the image with noise in its hole; add one level of noise to what is hidden
E  the input blocks and the middle block of a U-Net: every block's feature map
D  the output blocks, which take all of them; what they return is the noise

loss = mean over hidden pixels of (D(E(T(x))) - epsilon)^2                         for every example

T draws, once for student and teacher, a step t of 1..T-1, gamma between gamma_t-1 and gamma_t, and
epsilon ~ N(0, I): inside the hole y_t = sqrt(gamma) y_0 + sqrt(1 - gamma) epsilon, outside it the
image, all on a scale of [-1, 1]. Other than a masked autoencoder's, this E is shown the hidden
pixels, under noise; completing an image (`reconstruct`) starts from noise and never sees them.

`targets`, other images to be made of the same input, move epsilon to where y_t would come from
them: by sqrt(gamma / (1 - gamma)) (y_0 - y'), a factor that is held at 1 once there is more image
than noise, for there y_t itself says what the image is and the loss would be all 1 / (1 - gamma).

`tying` says which embedding of gamma D has. "tied": E's, as the published weights were
trained; but then unlearning E moves D. "frozen": a copy of its own, so that D is truly frozen, as
Theorem 1 of Li et al. (ICLR 2024) needs. Published files can be loaded as either.

Sampling. `sampler` is "ddpm", all steps of the schedule with fresh noise in each, or
"ddim", `sample_steps` of them (0: all) without. `sample_schedule` is the schedule that is
walked, ("linear", 2000, 1e-4, 0.09) for instance, or () for the one of training. What the released
evaluation did: its config names the former for testing, but the buffers of the checkpoint, loaded
after the schedule was set, overwrite it, so that all its images were sampled with the schedule of
training, ("linear", 2000, 1e-6, 0.01). Both are 2,000 ancestral steps.

Released quirk kept: the attention factors are compared with how much a map is smaller, not with its
side, so that the published network (whose config lists 16) has attention in its middle only.
Departures: no dropout; the loss is averaged over the hole of each image (there: over all pixels).
"""

import dataclasses
import functools
import math

import flax.struct
import jax
import jax.numpy as jnp

from l2l_jax.lib import pixels
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError, unknown
from l2l_jax.lib.nnx_pure import Pure
from l2l_jax.lib.precision import compute_dtype, exact
from l2l_jax.models.layers import denoising, unet
from l2l_jax.models.layers.noise_schedule import BOUNDLESS, Schedule
from l2l_jax.models.layers.vit import Dtype
from l2l_jax.types import Array, Metrics, Params

SIZES = {
    "published": unet.Size(64, (1, 2, 4, 8), 2),  # 62,641,347 parameters, for 256x256 pixels
    "small": unet.Size(32, (1, 1, 2), 1, (), 32, 8),  # 935,171, for 32x32
    "test": unet.Size(8, (1,), 1, (), 8, 4),
}
TYINGS, SAMPLERS = ("tied", "frozen"), ("ddim", "ddpm")
SAMPLE_STEPS = 50  # of DDIM, unless another number is asked for
RELEASED_TEST = ("linear", 2000, 1e-4, 0.09)  # named by the released config, used by nobody
SMALLEST = dict(size="test", image_size=16, cell=4, steps=10, beta_end=0.5, sample_steps=2)


@flax.struct.dataclass
class Inputs:
    """What T makes. Images are around [-1, 1]."""

    given: Array  # [B, H, W, 3] the image, noise in its hole
    noisy: Array  # [B, H, W, 3] y_t in the hole, the image elsewhere
    hidden: Array  # [B, H, W, 1] bool
    gamma: Array  # [B] share of the image's variance that is left in y_t
    epsilon: Array  # [B, H, W, 3] the noise to be found in the hole


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """The model as `ImageToImage`. Groups: encoder, decoder."""

    size: unet.Size
    image_size: int
    cell: int
    schedule: Schedule  # of training
    walked: Schedule  # of sampling
    sampler: str
    sample_steps: int
    tying: str
    remat: bool
    dtype: Dtype
    takes_tokens = False
    shows_hidden = True  # to E, under noise

    @property
    def grid(self) -> tuple[int, int]:
        return (self.image_size // self.cell,) * 2

    @property
    def identity(self) -> dict[str, object]:
        """What weights belong to. Image size and cell are not in it: convolutions take any."""
        trained = self.schedule
        name = "linear" if trained.name == "const" else trained.name  # from its end to its end
        bounds = {"beta_start": trained.first, "beta_end": trained.end}
        bounds = dict.fromkeys(bounds, "") if trained.name in BOUNDLESS else bounds
        known = {"schedule": name, "steps": trained.steps}
        return dataclasses.asdict(self.size) | known | bounds

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
        return Pure(lambda rngs: unet.Encoder(self.size, self.dtype, self.remat, rngs))

    @functools.cached_property
    def decoder(self) -> Pure:
        owns = self.tying == "frozen"
        return Pure(lambda rngs: unet.Decoder(self.size, owns, self.dtype, self.remat, rngs))

    @functools.cached_property
    def embedding(self) -> Pure:
        return Pure(lambda rngs: unet.Embedding(unet.Maker(self.size, self.dtype, rngs)))

    @property
    def sampling(self) -> str:
        walked, all_of_them = self.walked, self.sampler == "ddpm" or not self.sample_steps
        count = walked.steps if all_of_them else self.sample_steps
        return f"{self.sampler}, {count} of {walked.steps} steps, {walked.description}"

    @functools.cached_property
    def template(self) -> Params:
        return jax.eval_shape(self.init, jax.random.key(0))

    @property
    def canonical(self) -> Params:
        return self.template

    def init(self, rng: Array) -> Params:
        encoder, decoder = jax.random.split(rng)
        params = {"encoder": self.encoder.init(encoder), "decoder": self.decoder.init(decoder)}
        if self.tying == "frozen":
            params["decoder"]["embed"] = jax.tree.map(jnp.copy, params["encoder"]["embed"])
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
        """Draws a level and the noise, and hides the hole under both."""
        del params, visible  # nothing in this T is learned, or cheaper if known
        b, schedule = images.shape[0], jnp.asarray(self.schedule.gammas)
        t = jax.random.randint(rngs.fold(rng, "t"), (b,), 1, self.schedule.steps)
        share = jax.random.uniform(rngs.fold(rng, "share"), (b,))
        gamma = schedule[t - 1] + share * (schedule[t] - schedule[t - 1])
        epsilon = jax.random.normal(rngs.fold(rng, "epsilon"), images.shape)
        fill = jax.random.normal(rngs.fold(rng, "fill"), images.shape)
        return self.noised(images, mask, gamma, epsilon, fill, targets)

    def noised(
        self,
        images: Array,
        mask: Array,
        gamma: Array,
        epsilon: Array,
        fill: Array,
        targets: Array | None = None,
    ) -> Inputs:
        """T given its draws: gamma [B]; epsilon and fill, of y_t and of the hole, [B, H, W, 3]."""
        hidden, y = pixels.hidden(mask, self.image_size), signed(images)
        signal, noise = _scales(gamma)
        noisy = jnp.where(hidden, signal * y + noise * epsilon, y)
        given = jnp.where(hidden, fill, y)
        if targets is not None:
            epsilon = epsilon + jnp.minimum(signal / noise, 1.0) * (y - signed(targets))
        return Inputs(given, noisy, hidden, gamma, epsilon)

    def only_noise(self, inputs: Inputs) -> Inputs:
        """The same context and level with pure noise in the hole: y_t = epsilon.

        What the released L2L shows the teacher in place of a forget image.
        """
        return inputs.replace(noisy=jnp.where(inputs.hidden, inputs.epsilon, inputs.noisy))

    def seen_as(self, inputs: Inputs, noisy: Array) -> Inputs:
        """The same context and level with `noisy` as y_t, and the epsilon that explains it."""
        _, noise = _scales(inputs.gamma)
        noisy = jnp.where(inputs.hidden, noisy, inputs.noisy)
        return inputs.replace(noisy=noisy, epsilon=inputs.epsilon + (noisy - inputs.noisy) / noise)

    def energy(self, inputs: Inputs) -> Array:
        """[B] |epsilon|^2 / 2 over the hole: minus the log density of y_t, up to a constant."""
        return jnp.sum(jnp.where(inputs.hidden, inputs.epsilon, 0.0) ** 2, axis=(1, 2, 3)) / 2

    def encode(self, params: Params, inputs: Inputs) -> tuple[Array, ...]:
        """The map of every input block and of the middle, [B, h, w, C] each."""
        encoder = self.encoder.bind(params["encoder"])
        with exact(self.dtype):
            return encoder(inputs.given, inputs.noisy, inputs.gamma)

    def decode(self, params: Params, latents: tuple[Array, ...], inputs: Inputs) -> Array:
        """[B, H, W, 3] float32, the noise; what it says outside the hole means nothing."""
        embedding = params["decoder" if self.tying == "frozen" else "encoder"]["embed"]
        decoder = self.decoder.bind(params["decoder"])
        with exact(self.dtype):
            return decoder(latents, self.embedding.bind(embedding)(inputs.gamma))

    def loss_mask(self, inputs: Inputs) -> Array:
        """[B, H, W, 1]: the hole."""
        return inputs.hidden

    def loss(self, params: Params, inputs: Inputs) -> Array:
        """[B] mean squared error of the noise over the hidden pixels."""
        made = self.decode(params, self.encode(params, inputs), inputs)
        errors = jnp.where(inputs.hidden, (made - inputs.epsilon) ** 2, 0.0)
        values = jnp.sum(inputs.hidden, axis=(1, 2, 3)) * errors.shape[-1]
        return jnp.sum(errors, axis=(1, 2, 3)) / jnp.maximum(values, 1)

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
        """The sampler's pixels where hidden, the given ones elsewhere; [B, H, W, 3] in [0, 1]."""
        del visible
        hidden, known = pixels.hidden(mask, self.image_size), signed(images)
        fill = jax.random.normal(rngs.fold(rng, "fill"), images.shape)
        start = jnp.where(hidden, fill, known)

        def noise(t: Array) -> Array:
            return jax.random.normal(rngs.fold(rng, "step", t), images.shape)

        made = self.sample(params, start, hidden, noise)
        return pixels.paste(images, (made + 1) / 2, mask)

    def sample(self, params: Params, start: Array, hidden: Array, noise: denoising.Noise) -> Array:
        """[B, H, W, 3] around [-1, 1]. start: the image, noise in its hole; given and first y_t."""

        def predict(noisy: Array, gamma: Array) -> Array:
            inputs = Inputs(start, noisy, hidden, jnp.broadcast_to(gamma, start.shape[:1]), noisy)
            return self.decode(params, self.encode(params, inputs), inputs)

        if self.sampler == "ddpm":
            return denoising.ddpm(predict, start, start, hidden, self.walked, noise)
        steps = self.sample_steps or self.walked.steps
        return denoising.ddim(predict, start, start, hidden, self.walked, steps)


def signed(images: Array) -> Array:
    """[0, 1] -> [-1, 1]."""
    return images * 2 - 1


def _scales(gamma: Array) -> tuple[Array, Array]:
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
    beta_start: float = 1e-6,
    beta_end: float = 1e-2,
    sampler: str = "ddim",
    sample_steps: int = SAMPLE_STEPS,
    sample_schedule: tuple = (),
    tying: str = "frozen",
    remat: bool = False,
    dtype: str = "auto",
    width: int = 0,
    multipliers: tuple[int, ...] = (),
    blocks: int = 0,
    attention: tuple[int, ...] = (),
    head: int = 0,
    groups: int = 0,
) -> Diffusion:
    """A diffusion model of a known size, any number of which (0 or () = as known) can be changed.

    schedule, steps, beta_start, beta_end: of training. sampler, sample_steps, sample_schedule
    (name, steps, first and last beta; () = as trained), tying: see above. cell: side in pixels
    of the cells that masks are drawn on. remat recomputes each block backwards. dtype is that of
    the computation: "float32", "bfloat16", or "auto" (bfloat16 on accelerators). ConfigError for
    what does not divide, for unknown names, and for more steps than there are.
    """
    kinds = {"diffusion size": SIZES, "tying": TYINGS, "sampler": SAMPLERS}
    for (what, known), name in zip(kinds.items(), (size, tying, sampler), strict=True):
        if name not in known:
            raise unknown(what, name, known)
    given = dict(width=width, multipliers=_several("multipliers", multipliers), blocks=blocks)
    given |= dict(attention=_several("attention", attention), head=head, groups=groups)
    chosen = dataclasses.replace(SIZES[size], **{k: v for k, v in given.items() if v})
    unet.check(chosen)
    _check(chosen, image_size, cell)
    trained = Schedule(schedule, steps, beta_start, beta_end)
    if not isinstance(sample_schedule, tuple | list) or len(sample_schedule) not in (0, 4):
        raise ConfigError(
            "model.args.sample_schedule is (name, steps, first beta, last beta), such as "
            f"{RELEASED_TEST}, or () for the schedule of training, not {sample_schedule!r}."
        )
    walked = Schedule(*sample_schedule) if sample_schedule else trained
    if not (isinstance(sample_steps, int) and 0 <= sample_steps <= walked.steps):
        raise ConfigError(
            f"model.args.sample_steps={sample_steps}: the schedule that is walked has "
            f"{walked.steps} steps; take 1 to {walked.steps}, or 0 for all."
        )
    if sampler == "ddpm" and sample_steps not in (0, walked.steps):
        raise ConfigError(
            f"The ancestral sampler takes all {walked.steps} steps of its schedule: say "
            "model.args.sample_steps=0, or model.args.sampler=deterministic for fewer."
        )
    return Diffusion(
        chosen, image_size, cell, trained, walked, sampler, sample_steps, tying, remat,
        compute_dtype(dtype),
    )  # fmt: skip


def _several(what: str, numbers: object) -> tuple:
    if not isinstance(numbers, tuple | list):
        raise ConfigError(f"model.args.{what} are several numbers, such as (1, 2), not {numbers}.")
    return tuple(numbers)


def _check(size: unet.Size, image_size: int, cell: int) -> None:
    """ConfigError for an image that does not divide."""
    if not all(isinstance(n, int) and n > 0 for n in (image_size, cell)):
        raise ConfigError(
            f"image_size={image_size!r} and cell={cell!r} are whole numbers of pixels, 1 or more."
        )
    halved = f"halved {len(size.multipliers) - 1} times, as its multipliers need"
    for part, how in ((size.shrinks, halved), (cell, f"cut into cells of {cell} pixels")):
        if image_size % part:
            both = math.lcm(size.shrinks, cell)
            near = max(image_size - image_size % both, both)
            raise ConfigError(
                f"An image of {image_size} pixels cannot be {how}; try image_size={near} or "
                f"{near + both}."
            )
