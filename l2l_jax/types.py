"""The vocabulary: what a batch, a model, a method, a solver, a task, an evaluator are.

Everything follows one sentence, h = D . E . T: a model corrupts an image (T), encodes what is left
(E) and decodes the whole (D). Unlearning compares and moves E.

Models are objects (`ImageToImage`). Methods, solvers, tasks, data sets, evaluators and feature
networks are modules: `methods/l2l.py` *is* the method "l2l", and the protocols below say what such
a module contains. Keyword-only arguments of their functions are the schema of their config.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import flax.struct
import jax
import numpy as np

Array = jax.Array
Params = dict[str, Any]  # nested dict of arrays; its top-level keys are the parameter groups
Inputs = Any  # what T makes: a pytree of arrays, the model's own business
Latents = Any  # what E makes: a pytree of arrays, what unlearning compares
Outputs = Array  # what D makes: [B, ...] float32; of a model of tokens, their logits
Metrics = dict[str, Array]


@flax.struct.dataclass
class Batch:
    """Images of one side and what is hidden of them."""

    images: Array  # [B, H, W, 3] float32 in [0, 1], or the tokens a model made of them
    mask: Array  # [B, h, w] bool, True = hidden
    visible: tuple[int, int] | None = flax.struct.field(pytree_node=False, default=None)  # see Task


@flax.struct.dataclass
class UnlearnBatch:
    """Two typed halves, so that no term can act on the wrong rows. None: the method uses one."""

    retain: Batch | None
    forget: Batch | None
    noise: Array | None = None  # tokens of noise images, one for each forget image, if made before


class ImageToImage(Protocol):
    """Completes images. Pure functions of a plain nested dict of arrays.

    images: [B, H, W, 3] float32 in [0, 1]; each model normalises inside. mask: [B, h, w] bool,
    True = hidden, on the model's grid or a multiple of it. `visible` says what is known (static) of
    the number of visible cells, (fewest, most) over the batch: with it a model may drop hidden
    cells, without it it must mask them out. Losses and completions agree; latents then hold zeros
    where nothing is seen, so that their mean distance is smaller in that proportion.

    A model with a frozen tokenizer takes_tokens: in `corrupt` images may be given as what
    `tokenize` makes of them, [B, h, w] integers, which can be made once and kept.

    A model whose T adds noise to the hole may also have, for methods/l2l.py and methods/siss.py,
    only_noise(inputs) -> the same context and noise level, with pure noise in the hole;
    seen_as(inputs, noisy) -> inputs of the same images and noise level whose hole is as in `noisy`,
        [B, H, W, 3] like the field inputs.noisy, and the noise that would explain it;
    energy(inputs) -> [B] float32, half the sum of the squares of that noise, over the hole.
    """

    image_size: int  # H = W
    grid: tuple[int, int]  # cells a mask is drawn on
    takes_tokens: bool  # whether images may be given as what `tokenize` makes of them
    shows_hidden: bool  # whether E is shown hidden pixels, under noise; reconstruct never is
    template: Params  # names, shapes and dtypes of the parameters
    canonical: Params  # the same in the layout of files and digests: blocks as lists
    identity: dict[str, Any]  # what weights belong to, also where no shape shows it
    sampling: str  # how `reconstruct` completes, in words: figures of other ways are others

    def init(self, rng: Array) -> Params: ...

    def corrupt(
        self,
        params: Params,
        images: Array,
        mask: Array,
        rng: Array,
        targets: Array | None = None,
        visible: tuple[int, int] | None = None,
    ) -> Inputs:
        """T: everything random or frozen happens here, once. `targets`: what D should make."""

    def encode(self, params: Params, inputs: Inputs) -> Latents: ...

    def decode(self, params: Params, hidden: Latents, inputs: Inputs) -> Outputs: ...

    def loss_mask(self, inputs: Inputs) -> Array:
        """Bool, broadcasts to D's output: the values that the loss is about; others mean nothing.

        Where models are compared by what they make, only these count.
        """

    def loss(self, params: Params, inputs: Inputs) -> Array:
        """[B] the model's own training loss, per example."""

    def training_loss(self, params: Params, inputs: Inputs) -> tuple[Array, Metrics]:
        """What training minimises, scalar: mean loss, and terms of the whole batch if any."""

    def reconstruct(
        self,
        params: Params,
        images: Array,
        mask: Array,
        rng: Array,
        visible: tuple[int, int] | None = None,
    ) -> Array:
        """[B, H, W, 3] in [0, 1], the full sampler; visible pixels returned as given."""

    def tokenize(self, params: Params, images: Array) -> Array:
        """The first, fixed part of T: [B, h, w] int32, or the images of a model of pixels."""

    def inferred_args(self, params: Params) -> dict[str, Any]:
        """What parameters on the host tell of `identity` by themselves, arguments of `build`."""


class Method(Protocol):
    """A module of methods/: one objective, one pure function."""

    TRAINABLE: tuple[str, ...]  # parameter groups that move, e.g. ("encoder",)
    SIDES: tuple[str, ...]  # halves of the batch it uses: ("retain", "forget") or ("retain",)
    # SOLVER = "...": the one it is meant for; a run with another says so.
    TEACHER: bool  # whether it reads the original model
    MAKES_ORIGINAL: bool  # whether its result is the model to be unlearned (pretrain)

    # A method may also have
    # noise_images(rng, shape, mean, std, **some): it wants noise in place of forget images. With
    #     this function a bank of their tokens can be made beforehand; `some` of its arguments.
    # UNTIL: (name of a metric, name of an argument). The phase ends when the metric reaches the
    #     argument, if that is not 0; if it is, and config.reference names a retrained model, it
    #     becomes the mean of the metric with that model in the student's place.

    def objectives(
        self,
        model: ImageToImage,
        student: Params,
        teacher: Params,
        batch: UnlearnBatch,
        rng: Array,
        **hyper: Any,
    ) -> tuple[Array, Array, Metrics]:
        """(retain objective, forget objective, metrics), scalars; minimising both is the goal."""


class Objectives(Protocol):
    """The two objectives of one batch as functions of the trainable parameters."""

    def gradients(
        self, student: Params, *weights: tuple[float, float]
    ) -> tuple[list[Params], Metrics]:
        """The gradient of r * retain + f * forget for each (r, f), and metrics with both values.

        Zero where values may not move (saliency).
        """


class Solver(Protocol):
    """A module of solvers/: turns the two objectives into one update direction."""

    # A solver may also have, for what one phase must know of those before it,
    # boundary(**hyper) -> str: what the forget objective at the end of the phase is to be noted as;
    #     "": nothing. bound(**hyper) -> float: what it should not exceed there.
    # resolved(found, **hyper) -> hyper: its arguments, given what phases before have noted.

    def update(
        self, objectives: Objectives, student: Params, step: Array, **hyper: Any
    ) -> tuple[Params, Metrics]: ...


class Task(Protocol):
    """A module of tasks/: draws masks on a grid. Arguments by keyword, the same in both."""

    def mask(self, rng: Array, batch: int, grid: tuple[int, int], **args: Any) -> Array:
        """[batch, h, w] bool, True = hidden; h, w are those of the grid or a multiple."""

    def visible(self, grid: tuple[int, int], **args: Any) -> tuple[int, int]:
        """(fewest, most) cells of the grid that are visible in an example."""


@dataclasses.dataclass(frozen=True)
class Source:
    """One part of a data set, by random access. Examples are sorted by key.

    `read(i)` returns a uint8 RGB image [H, W, 3] of any size, or raises `BrokenImage`.
    """

    keys: Sequence[str]  # unique; the same on every machine
    labels: np.ndarray  # [N] int32
    classes: tuple[str, ...]  # class names, the label is the position
    read: Callable[[int], np.ndarray]
    fallible: bool = False  # whether an image may turn out to be unreadable
    titles: tuple[str, ...] = ()  # human names of the classes, if they differ
    stamp: Callable[[int], str] | None = None  # of an image: equal stamps mean equal pixels


class Dataset(Protocol):
    """A module of data/."""

    def load(self, part: str, **args: Any) -> Source:
        """part: "train" or "eval"."""


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """A network that judges images. apply: [B, H, W, 3] in [0, 1] -> features and logits.

    A module of feature_networks/ has build(sources, splits, image_size, *, ...) -> FeatureNetwork,
    and, if it needs a published file, file(*, ...) -> its name.
    """

    name: str
    about: dict[str, Any]  # digest, how it was made, what it is worth: stated in the report
    params: Params
    apply: Callable[[Params, Array], tuple[Array, Array]]  # [B, D], [B, C]; C may be 0


@dataclasses.dataclass(frozen=True)
class Completions:
    """What one variant of the model made of one side under one task; N images in key order."""

    images: np.ndarray  # [K, H, W, 3] uint8, the first K examples as they are
    hidden: np.ndarray  # [K, H, W] bool
    completed: np.ndarray  # [K, H, W, 3] uint8
    l1: np.ndarray  # [N] mean absolute error on hidden pixels, in [0, 1]
    mse: np.ndarray  # [N] mean squared error on hidden pixels
    features: np.ndarray | None  # [N, D] float32 of the completions; None: no such network is here
    logits: np.ndarray | None  # [N, C]
    real_features: np.ndarray | None  # [N, D] of the same images, complete
    real_logits: np.ndarray | None  # [N, C]
    retrain_distance: np.ndarray | None = (
        None  # [N] root mean square distance to the retrained model's, on
    )
    #                                  hidden pixels, if there is such a model


class Evaluation(Protocol):
    """What an evaluator may ask for. Expensive things are computed once, when first asked for."""

    variants: tuple[str, ...]  # "original", "unlearned", and "retrained" if there is a reference
    sides: tuple[str, ...]  # "retain", "forget"
    tasks: tuple[str, ...]
    seed: int

    def completions(self, variant: str, side: str, task: str, network: str = "main") -> Completions:
        """With the features and logits of a network: a key of config.networks."""

    def keep_picture(self, name: str, image: np.ndarray) -> None:
        """Writes images/<name>.png; image: uint8 RGB [H, W, 3]."""

    def keep_record(self, name: str, record: Any) -> None:
        """Writes <name>.json."""


class Evaluator(Protocol):
    """A module of evaluators/: answers one question about a model.

    With METRIC, the name of its figure, it may stand in a config under other names, such as
    fid_places=dict(evaluator="fid", network="places"), and its figures are named after those. With
    LOGITS = True its network must have some. LEAST = {argument: its smallest value}.
    """

    def evaluate(
        self, evaluation: Evaluation, **args: Any
    ) -> Iterator[tuple[tuple[str, str, str], str, float]]:
        """Yields ((variant, side, task), metric, value); may keep pictures and records."""
