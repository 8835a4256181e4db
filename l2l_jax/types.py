"""The vocabulary: what a batch, a model, a method, a solver, a task and all other plug-ins are.

Everything follows one sentence, h = D . E . T: a model corrupts an image (T), encodes what is left
(E) and decodes the whole (D). Unlearning compares and moves E.

A model is an object with the interface `ImageToImage`. All other plug-ins are modules: the file
methods/l2l.py *is* the method "l2l". This file declares everything that such a module may contain,
as a dataclass whose fields have the names that the module uses. `registry.find` reads a module
into its dataclass: a field without a default is required, a field with a default is optional, and
an upper-case name that no field declares is an error if it looks like a misspelt field. The
keyword-only arguments of a plug-in's main function are the keys of its `args` in the config. BOUNDS
says which values they can have: it is checked before a run begins. Without an entry an argument has
the type of its default, and a number is finite.

Arrays, batches and the interface of models are in model_types.py; import them from here.

Shapes use these letters: B images of a batch, H x W pixels, h x w cells of a mask or tokens, N
images of a split, D features, C classes. Images are float32 in [0, 1] unless a comment says
otherwise.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from l2l_jax.audit_types import (  # noqa: F401 - plug-ins import these from here
    IMAGE_SETS,
    Audit,
    AuditFigure,
    Finding,
    Findings,
    ImageSet,
    Measure,
    Place,
    Subject,
    TaskName,
)
from l2l_jax.bounds import (  # noqa: F401 - plug-ins import these from here
    DEPTH_BOUNDS,
    PIXEL_BOUNDS,
    SEED_BOUNDS,
    WIDTH_BOUNDS,
    Bounds,
)
from l2l_jax.model_types import (  # noqa: F401 - as above
    RANDOM_WEIGHTS,
    Activations,
    Array,
    Batch,
    CenteredObjectives,
    Images,
    ImageToImage,
    Inputs,
    Latents,
    Mask,
    Metrics,
    NoisyModel,
    Objectives,
    Outputs,
    Params,
    PerImage,
    Rng,
    Scalar,
    TokenModel,
    Tokens,
    UnlearnBatch,
    Visible,
)

Bounded = Mapping[str, Any]  # {argument: its Bounds, or a Bounded of the keys of a nested dict}


def _no_bounds() -> Bounded:
    return {}


# Models ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A module of models/."""

    name: str
    build: Callable[..., ImageToImage]  # build(*, ...): the arguments are those of model.args
    SMALLEST: Mapping[str, Any]  # arguments of the smallest model, which tests build
    BOUNDS: Bounded = dataclasses.field(default_factory=_no_bounds)


# Methods and solvers -----------------------------------------------------------------------------

Objective = Callable[..., tuple[Array, Array, Metrics]]
Boundaries = tuple[str, str]  # (name at the start of a phase, name at its end), "" for none


def _data(model: ImageToImage, **args: Any) -> str:
    del model, args
    return "data"


def _no(**args: Any) -> bool:
    del args
    return False


def _can(model: ImageToImage) -> str:
    del model
    return ""


@dataclasses.dataclass(frozen=True)
class Method:
    """A module of methods/: the two objectives of unlearning as one pure function.

    objectives(model, student, teacher, batch, rng, *, ...) returns (retain objective, forget
    objective, metrics), all scalars; minimising both objectives is the goal. student and teacher
    are all parameter groups; the teacher is the original model, or what the phase names as its
    teacher; {} if TEACHER is False.
    """

    name: str
    objectives: Objective
    TRAINABLE: tuple[str, ...]  # parameter groups that move, e.g. ("encoder",)
    SIDES: tuple[str, ...]  # sides of the batch it uses: ("retain", "forget") or ("retain",)
    TEACHER: bool  # whether it reads the original model
    MAKES_ORIGINAL: bool = False  # whether its result is the model to be unlearned (pretrain)
    retain_target: Callable[..., str] = _data  # retain_target(model, **args): what the retain
    #     objective fits: "data", or "original" (then it is zero where the student is the teacher)
    FORGET_TARGETS_RETAIN: bool = False  # whether the forget objective has retain images as target
    SOLVER: str = ""  # the solver it is meant for; a run with another one logs a warning
    UNTIL: tuple[str, str] | None = None  # (metric, argument): the phase ends when the metric
    #     reaches the argument, unless that is 0. If it is 0 and config.reference names a retrained
    #     model, the argument becomes the mean of the metric with that model as the student.
    needs_seeds: Callable[..., bool] = _no  # needs_seeds(**args): whether it reads Batch.seeds
    draw_noise: Callable[..., Array] | None = None  # draw_noise(rng, shape, mean, std, *, ...):
    #     the noise images that replace forget images, so that a token bank can hold their tokens
    begin: Callable[..., Params] | None = None  # begin(model, params, rng, *, ...): where the phase
    #     ends, made of where it starts; a phase of such a method takes no step
    examples: Callable[..., Any] | None = (
        None  # examples(model, params, batch, rng): what each image
    )
    #     adds to the sums of lib/ridge.py; a phase of such a method is solved in one step
    solve: Callable[..., Params] | None = None  # solve(sums, params, *, ...): where that phase ends
    OVERSHOOTS: bool = False  # whether it moves the images of a list far beyond never-seen ones,
    #     unless the phase has stop="unseen"; without it a run logs a warning
    spares_forget: Callable[..., bool] = _no  # spares_forget(**args): whether on="all", which holds
    #     the forget images, is refused
    refuses: Callable[[ImageToImage], str] = _can  # refuses(model): why the method cannot be stated
    #     for a model, "" if it can
    VARIANTS: tuple[Mapping[str, Any], ...] = ()  # arguments that make another objective, to test
    BOUNDS: Bounded = dataclasses.field(default_factory=_no_bounds)


@dataclasses.dataclass(frozen=True)
class Solver:
    """A module of solvers/: turns the two objectives into one update direction.

    update(objectives, student, step, *, ...) returns (gradient, metrics); the gradient has the
    structure of `student`, the trainable groups; metrics include "loss". The fields `boundaries`,
    `bound`, `start` and `resolve` come together: they carry the value of the forget objective at a
    boundary to a later phase.
    """

    name: str
    update: Callable[..., tuple[Params, Metrics]]
    VARIANTS: tuple[Mapping[str, Any], ...] = ()  # arguments that make another solver, to test
    boundaries: Callable[..., Boundaries] | None = None  # boundaries(**args): names under which the
    #     forget objective at the start and at the end of the phase is stored; "" for none. The one
    #     at the start counts only where the retain objective is 0.
    bound: Callable[..., float] | None = None  # bound(**args): what it should not exceed at the end
    start: Callable[..., str] | None = None  # start(found, **args): the boundary at which a phase
    #     starts; "" = where the phase before it ends
    resolve: Callable[..., dict[str, Any]] | None = None  # resolve(found, **args) returns the
    #     arguments completed by {boundary: value} of earlier phases; ConfigError if one is missing
    begin: Callable[..., Params] | None = None  # begin(student, middle, **args): where a phase
    #     starts. It comes together with `after`, `settle` and `certify`: a phase with a guarantee
    after: Callable[..., Params] | None = None  # after(student, rng, **args): the parameters after
    #     a step, made of those that the optimizer made
    settle: Callable[..., dict[str, Any]] | None = (
        None  # settle(steps, rate, **args): all arguments
    )
    certify: Callable[..., dict[str, Any]] | None = (
        None  # certify(steps, rate, **args): epsilon, ...
    )
    solved: Callable[..., bool] | None = None  # solved(**args): whether the start of the phase is
    #     its solution already; then the phase takes no step
    BOUNDS: Bounded = dataclasses.field(default_factory=_no_bounds)


# Tasks and data ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Task:
    """A module of tasks/: draws masks on a grid. Both functions take the same keyword arguments.

    mask(rng, batch, grid, *, ...) returns [batch, h, w] bool, True = hidden; h, w are those of the
    grid or a multiple. visible(grid, *, ...) returns (fewest, most) visible cells of an image.
    """

    name: str
    mask: Callable[..., Array]
    visible: Callable[..., Visible]
    EXAMPLE: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # arguments that fit a
    #     grid of 4 x 4 cells, to test
    HIDES: bool = True  # whether something is hidden of every image
    BOUNDS: Bounded = dataclasses.field(default_factory=_no_bounds)


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


@runtime_checkable
class SplitLike(Protocol):
    """What a feature network may read of a split (data/splits.py): some rows of one part."""

    @property
    def part(self) -> str:
        """ "train", "eval", or "proxy"."""
        ...

    @property
    def indices(self) -> np.ndarray:
        """Rows of the Source of that part."""
        ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A module of datasets/: load(part, *, ...) returns a Source; part is "train" or "eval"."""

    name: str
    load: Callable[..., Source]
    EXAMPLE: Mapping[str, Any] | None = None  # arguments that need no files of the user, to test
    BOUNDS: Bounded = dataclasses.field(default_factory=_no_bounds)


# Evaluation --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Completions:
    """What one variant of the model makes of one side under one task; N images in key order."""

    images: np.ndarray  # [K, H, W, 3] uint8, the first K examples as they are
    hidden: np.ndarray  # [K, H, W] bool
    completed: np.ndarray  # [K, H, W, 3] uint8
    l1: np.ndarray  # [N] mean absolute error on hidden pixels, in [0, 1]
    mse: np.ndarray  # [N] mean squared error on hidden pixels
    features: np.ndarray | None  # [N, D] float32 of the completions; None: the network is missing
    logits: np.ndarray | None  # [N, C]
    real_features: np.ndarray | None  # [N, D] of the same images, complete
    real_logits: np.ndarray | None  # [N, C]
    retrain_distance: np.ndarray | None = None  # [N] root mean square distance on hidden pixels to
    #     the completions of the retrained model, or the mean over retrained models


@runtime_checkable
class Evaluation(Protocol):
    """What an evaluator may ask for. Expensive things are computed once, at their first use."""

    variants: tuple[str, ...]  # "original", "unlearned", "retrained" of a reference, "retrained_2"
    sides: tuple[str, ...]  # "retain", "forget"; or "forget_train" or "retain_train" alone
    shown: tuple[str, ...]  # the sides whose images may be seen on a page
    tasks: tuple[str, ...]
    seed: int

    def completions(self, variant: str, side: str, task: str, network: str = "main") -> Completions:
        """Completions with the features and logits of a network: a key of config.networks."""
        ...

    def keep_picture(self, name: str, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Writes images/<name>.png."""
        ...

    def keep_record(self, name: str, record: Any) -> None:
        """Writes <name>.json."""


Cell = tuple[str, str, str]  # (variant, side, task)
Estimate = tuple[float, tuple[float, float]]  # (value, its 95 % interval); see lib/bootstrap.py
FigureValues = Iterator[tuple[Cell, str, float | Estimate]]  # (where, name of a figure, value)


@dataclasses.dataclass(frozen=True)
class Figure:
    """One number that an evaluator measures, and how to read it."""

    name: str  # as yielded by `evaluate`, e.g. "psnr"
    title: str  # for people, e.g. "PSNR, hidden pixels"
    unit: str = ""
    good: str = ""  # on the retain side: "up", "down", or "" if no direction is good
    good_on_forget: str = "near"  # "near": close to the retrained model's figure, if there is one;
    #     "same": as on the retain side, for a distance to the retrained model
    digits: int = 4  # behind the decimal point
    spread_of: str = ""  # the figure of which this one is the standard deviation; not shown alone
    note: str = ""  # a sentence for the page that explains the figure, if it needs one


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """A module of evaluators/: answers one question about completions.

    evaluate(evaluation, *, ...) yields ((variant, side, task), name of a figure, value), the value
    maybe with its interval, and may keep pictures and records. An evaluator whose figures are one
    figure and its spread may stand in a config under another name, e.g.
    fid_places=dict(evaluator="fid", network="places"); its figure is then called after that name.
    """

    name: str
    evaluate: Callable[..., FigureValues]
    FIGURES: tuple[Figure, ...]  # all that it yields, in the order in which a table shows them
    NEEDS_LOGITS: bool = False  # whether its network must tell classes apart
    BOUNDS: Bounded = dataclasses.field(default_factory=_no_bounds)


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """A network that describes images by features and class logits."""

    name: str
    about: dict[str, Any]  # digest, origin, resizing, accuracy: stated in the report
    params: Params
    apply: Callable[[Params, Array], tuple[Array, Array]]  # images [B, H, W, 3] in [0, 1] ->
    #     (features [B, D], logits [B, C]); C may be 0


Load = Callable[[str, Params, Callable[..., Params]], tuple[Params, dict[str, Any]]]
Cached = Callable[[str, Callable[[], tuple[Params, dict[str, Any]]]], tuple[Params, dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class NetworkContext:
    """What the build function of a feature network is given."""

    sources: Mapping[str, Source]
    splits: Mapping[str, SplitLike]
    image_size: int
    load: Load  # load(spec, template, from_torch) returns (parameters, statements about them) of a
    #     published file; spec: its name, a path, or RANDOM_WEIGHTS. from_torch(state dict, path)
    #     returns parameters. DataMissing if there is no file, WrongWeights if it does not fit.
    cached: Cached  # cached(key, make) returns what make() returned for this key, maybe earlier


@dataclasses.dataclass(frozen=True)
class NetworkFile:
    """A module of feature_networks/: build(context, *, ...) returns a FeatureNetwork."""

    name: str
    build: Callable[..., FeatureNetwork]
    file: Callable[..., str] | None = None  # file(**args): the weights file that build needs
    BOUNDS: Bounded = dataclasses.field(default_factory=_no_bounds)


# Files -------------------------------------------------------------------------------------------

StateDict = dict[str, np.ndarray]


def _unchanged(params: Any, *_: Any) -> Any:
    return params


@dataclasses.dataclass(frozen=True)
class FileFormat:
    """A module of weights/formats/: the official PyTorch files of one model, and file quirks.

    A model without such a module trains, unlearns, saves and loads in this project's own format;
    it has no official files (NAMES is None).
    """

    name: str
    NAMES: Sequence[Any] | None = None  # rules of weights/name_map.py
    AMBIGUOUS: tuple[str, ...] = ()  # build arguments that an official file may not determine
    ACCEPTS_PART: Mapping[str, str] = dataclasses.field(default_factory=dict)  # {model: group}: a
    #     file of that model gives this group of parameters; the rest is initialised
    infer_args: Callable[[StateDict, dict[str, Any]], dict[str, Any]] | None = None  # (state dict,
    #     what else is known) -> build arguments; WrongWeights if it is another network
    from_torch: Callable[[StateDict], StateDict] = _unchanged  # drops what the network never uses
    to_torch: Callable[[StateDict, ImageToImage], dict[str, Any]] | None = None  # (state dict,
    #     model) -> content of an official file
    adapt: Callable[[Params, ImageToImage], Params] = _unchanged  # parameters of a file for a model
    #     of another setting, such as another tying
    resize_positions: Callable[[Params, int], Params] = _unchanged  # (parameters, side of the grid)
