"""Arrays, batches and models: what the objects are that all plug-ins take and return.

Everything follows one sentence, h = D . E . T: a model corrupts an image (T), encodes what is left
(E) and decodes the whole (D). Unlearning compares and moves E. A model is an object with the
interface `ImageToImage`. The letters of the shapes are explained in types.py, from which the rest
of the package imports all names of this file.
"""

from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax
from jaxtyping import Bool, Float, Int, Key

Array = jax.Array
Params = dict[str, Any]  # nested dict of arrays; its top-level keys are the parameter groups
Metrics = dict[str, Array]  # scalars by name

Images = Float[Array, "B H W 3"]  # in [0, 1]
Tokens = Int[Array, "B h w"]
Mask = Bool[Array, "B rows cols"]  # True = hidden; on cells of the grid or on finer ones
Scalar = Float[Array, ""]
PerImage = Float[Array, "B"]
Rng = Key[Array, ""]
Visible = tuple[int, int]  # (fewest, most) visible cells of any image of the batch

Inputs = Any  # what T returns: a pytree of arrays that only the model itself looks into
Latents = Any  # what E returns: a pytree of arrays, what unlearning compares
Activations = dict[str, Float[Array, "B _"]]  # {block: float32, the mean over its positions}
Outputs = Float[Array, "B ..."]  # what D returns; logits for a model of tokens

RANDOM_WEIGHTS = "random"  # in place of a weights file: seeded random values, for tests


@flax.struct.dataclass
class Batch:
    """Images of one side (retain or forget) and the mask that hides a part of each."""

    images: Array  # [B, H, W, 3] float32, or the tokens [B, h, w] that the model makes of them
    mask: Array  # [B, h, w] bool, True = hidden
    visible: Visible | None = flax.struct.field(pytree_node=False, default=None)  # see Task.visible
    seeds: Array | None = None  # [B] uint32: of each image, the same in every step; see needs_seeds


@flax.struct.dataclass
class UnlearnBatch:
    """The two sides of a batch, so that no term can act on the wrong images.

    A side is None if the method does not use it.
    """

    retain: Batch | None
    forget: Batch | None
    noise: Array | None = None  # [B, h, w] tokens of noise images, if they come from a token bank

    def side(self, name: str) -> Batch:
        """The batch of the side "retain" or "forget". ValueError if the batch has no such side."""
        batch = {"retain": self.retain, "forget": self.forget}[name]
        if batch is None:
            raise ValueError(f"The batch has no {name} images: SIDES of the method lacks {name!r}.")
        return batch


# Models ------------------------------------------------------------------------------------------


@runtime_checkable
class ImageToImage(Protocol):
    """A model that completes images: pure functions of a plain nested dict of arrays.

    images are [B, H, W, 3] float32 in [0, 1]; each model normalises inside. mask is [B, h, w] bool,
    True = hidden, on the model's grid or on a multiple of it. `visible` is static and bounds the
    number of visible cells of each image: (fewest, most). With it a model may drop hidden cells;
    without it, it masks them out. Both give the same losses and completions; without it the latents
    hold zeros where nothing is visible, so that their mean distance is smaller in proportion.
    """

    image_size: int  # H = W
    grid: tuple[int, int]  # cells a mask is drawn on
    takes_tokens: bool  # whether `corrupt` also takes what `tokenize` returns in place of images
    shows_hidden: bool  # whether E is shown hidden pixels under noise; `reconstruct` never is
    sampling: str  # how `reconstruct` completes, in words; figures compare only if this is equal

    @property
    def template(self) -> Params:
        """Names, shapes and dtypes of the parameters, as jax.ShapeDtypeStruct."""
        ...

    @property
    def canonical(self) -> Params:
        """The template in the layout of files and digests: a stack of blocks is a list."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that weights belong to, including those that no array shape shows."""
        ...

    def init(self, rng: Rng) -> Params:
        """Fresh parameters, float32."""
        ...

    def corrupt(
        self,
        params: Params,
        images: Array,
        mask: Array,
        rng: Rng,
        targets: Array | None = None,
        visible: Visible | None = None,
    ) -> Inputs:
        """T: everything random or frozen happens here, once. targets: what D should return."""
        ...

    def encode(self, params: Params, inputs: Inputs) -> Latents:
        """E: the latents."""
        ...

    def decode(self, params: Params, latents: Latents, inputs: Inputs) -> Array:
        """D: [B, ...] float32, pixels or logits."""
        ...

    def activations(self, params: Params, inputs: Inputs) -> Activations:
        """What every block of E and D returns, averaged over the positions that it sees.

        The names are "encoder.0", "encoder.1", ..., "decoder.0", ...; the numbers say in which
        order the blocks run.
        """
        ...

    def loss_mask(self, inputs: Inputs) -> Array:
        """Bool, broadcasts to the output of D: True where the loss counts.

        Comparisons of two models' outputs use these values only.
        """
        ...

    def loss(self, params: Params, inputs: Inputs) -> PerImage:
        """[B] the model's own training loss of each image."""
        ...

    def training_loss(self, params: Params, inputs: Inputs) -> tuple[Scalar, Metrics]:
        """(scalar that training minimises, metrics): mean loss plus terms of the whole batch."""
        ...

    def own_loss(self, params: Params, inputs: Inputs) -> Scalar:
        """The mean of the terms of `loss` that compare with no target, such as a codebook's."""
        ...

    def reconstruct(
        self,
        params: Params,
        images: Images,
        mask: Mask,
        rng: Rng,
        visible: Visible | None = None,
    ) -> Images:
        """[B, H, W, 3] in [0, 1]: runs the full sampler and returns visible pixels as given."""
        ...

    def tokenize(self, params: Params, images: Images) -> Array:
        """The first, frozen part of T: [B, h, w] int32; a model of pixels returns the images."""
        ...

    def inferred_args(self, params: Params) -> dict[str, Any]:
        """Arguments of `build` that can be read off parameters on the host, for their file."""
        ...


@runtime_checkable
class TokenModel(ImageToImage, Protocol):
    """A model with a discrete tokenizer: a VQ-GAN, or a MAGE over a frozen one."""

    codes: int  # size of the codebook

    def detokenize(self, params: Params, tokens: Tokens) -> Images:
        """[B, H, W, 3] float32, not clipped."""
        ...

    def unseen(self, mask: Mask, visible: Visible | None = None) -> Bool[Array, "B h w"]:
        """[B, h, w]: cells that `reconstruct` hides from the model, a margin included."""
        ...


@runtime_checkable
class NoisyModel(ImageToImage, Protocol):
    """A model whose T adds noise to the hole, such as a diffusion model. shows_hidden is True."""

    def only_noise(self, inputs: Inputs) -> Inputs:
        """The same visible pixels and noise level, with pure noise in the hole."""
        ...

    def seen_as(self, inputs: Inputs, noisy: Images) -> Inputs:
        """Inputs whose hole shows `noisy`, with the noise that explains it for these images."""
        ...

    def energy(self, inputs: Inputs) -> PerImage:
        """[B] half the sum of squares, over the hole, of the noise that explains the inputs."""
        ...


# Objectives ----------------------------------------------------------------------------------


@runtime_checkable
class Objectives(Protocol):
    """The two objectives of one batch as functions of the trainable parameters."""

    def gradients(
        self, student: Params, *weights: tuple[float, float]
    ) -> tuple[list[Params], Metrics]:
        """(gradient of r * retain + f * forget for each pair (r, f), metrics with both values).

        A gradient is zero where values may not move (saliency).
        """
        ...


@runtime_checkable
class CenteredObjectives(Objectives, Protocol):
    """Objectives for a solver with a guarantee (Solver.certify)."""

    @property
    def center(self) -> Params:
        """Values like the student's that no forget image decided."""
        ...
