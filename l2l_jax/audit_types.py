"""What an audit is given, and what it returns: the vocabulary of l2l_jax/audits.

An audit examines one variant of the model at a time: the original, the unlearned model, or a
retrained one. What it finds of each is compared afterwards on one scale: 0 = like the retrained
model, 1 = like the original, below 0 = over-forgotten. types.py re-exports all names of this file.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from l2l_jax.bounds import Bounds
from l2l_jax.model_types import Batch, ImageToImage, Params

IMAGE_SETS = (
    "forget_train",
    "forget_eval",
    "retain_train",
    "retain_eval",
    "other",
    "forgotten",
)  # what each of them holds: engine/audit_sets.py
Place = Mapping[str, int | float | str]  # where on its axes a figure was measured: {"steps": 10}


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images that an audit uses, chosen before anything is trained; the same for every variant."""

    name: str  # one of IMAGE_SETS, for "forgotten" the one that it is
    images: UInt8[np.ndarray, "N H W 3"]
    classes: tuple[str, ...]  # of each image

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Sequence[int] | np.ndarray) -> "ImageSet":
        """Some of the images."""
        return ImageSet(self.name, self.images[rows], tuple(self.classes[row] for row in rows))


@dataclasses.dataclass(frozen=True)
class Finding:
    """One value of a figure, of one variant."""

    figure: str  # a name in FIGURES
    value: float
    resamples: Float[np.ndarray, " R"] | None = None  # its values on other draws of the images, the
    #     same draws for every variant; None: no interval
    at: Place = dataclasses.field(default_factory=dict)


Findings = Iterator[Finding]
Measure = Callable[..., Any]  # (model, params, Batch, rng, **static) -> pytree of arrays [B, ...]
TaskName = str | tuple[str, Mapping[str, Any]]  # a name in config.tasks, "" = the headline; or a
#     file of tasks/ and its arguments


@runtime_checkable
class Subject(Protocol):
    """The variant under examination, and what an audit may ask about it."""

    variant: str
    model: ImageToImage
    params: Params  # on the mesh
    seed: int
    others: Mapping[str, Params]  # the variants that COMPARES names, on the mesh
    sets: Mapping[str, ImageSet]  # those that SETS names, and those of OPTIONAL that there are
    tasks: tuple[str, ...]  # the tasks of the evaluation; the first is the headline
    training_tasks: tuple[str, ...]  # those of the last phase
    other_tasks: Mapping[str, TaskName]  # by file: tasks that no phase and no evaluation of the run
    #     uses, with arguments that fit the model's grid

    def measure(
        self,
        function: Measure,
        images: ImageSet,
        *,
        params: Params | None = None,
        task: TaskName = "",
        draw: int = 0,
        given: Any = None,
        **static: Any,
    ) -> Any:
        """What the function returns for every image: a pytree of NumPy arrays [N, ...].

        The function is of module level and runs compiled, on batches over all devices. params: in
        place of those of the variant. Masks and random numbers depend on the name of the set, the
        task and `draw`; no variant gets others. given: a pytree of arrays that the function takes
        as its keyword `given`, the same for every batch; None: it takes none.
        """
        ...

    def attack(
        self,
        images: ImageSet,
        steps: Sequence[int],
        *,
        lr: float,
        batch_size: int = 16,
        start: Params | None = None,
        method: str = "finetune",
        groups: tuple[str, ...] = (),
    ) -> Iterator[tuple[int, Params]]:
        """Trains the model on the images; yields (steps done, parameters) at each of `steps`.

        It is trained under the headline task, with the own train step of the project. steps:
        ascending; 0 is the start. groups: the parameter groups that are trained, () = those of the
        method. Random numbers are the same for every variant. CannotRun if a metric becomes
        non-finite.
        """
        ...

    def unlearn(
        self, forget: ImageSet, retain: ImageSet, steps: int, *, start: Params | None = None
    ) -> Params:
        """What the run's own unlearning makes of the variant, or of `start`, for these images.

        Method, solver, tasks and optimizer are those of the run's last phase that has a forget
        side; the parameters are both the start and the teacher. Random numbers are the same for
        every variant. CannotRun if no phase has a forget side or a metric becomes non-finite.
        """
        ...

    def estimate(
        self,
        figure: str,
        of: Callable[..., float],
        *samples: np.ndarray,
        at: Place | None = None,
    ) -> Finding:
        """The finding of(*samples), with its values on resamples of the rows of each sample."""
        ...


@dataclasses.dataclass(frozen=True)
class AuditFigure:
    """One figure of an audit, and how to read it."""

    name: str
    title: str  # for people
    unit: str = ""
    digits: int = 3  # behind the decimal point
    over: str = ""  # the axis of `Finding.at` over which it is a curve


@dataclasses.dataclass(frozen=True)
class Audit:
    """A module of audits/: attacks a model, or asks a question that no method was trained for.

    audit(subject, *, ...) yields Findings; the first one is the headline, which the page shows on a
    line between the retrained model and the original.
    """

    name: str
    audit: Callable[..., Findings]
    TITLE: str  # the question, for people
    FIGURES: tuple[AuditFigure, ...]
    SETS: tuple[str, ...]  # of IMAGE_SETS, all of which it needs
    COST: str  # in words
    OPTIONAL: tuple[str, ...] = ()  # of IMAGE_SETS: it says less without them
    TRAINS: bool = False  # whether it trains the model
    ATTACKS: bool = False  # whether what it finds was hidden: the verdict names it
    COMPARES: tuple[str, ...] = ()  # of "original", "unlearned" and "retrained": variants that it
    #     reads besides the one examined
    READS: tuple[str, ...] = ()  # of "unlearning" and "other_tasks": what else of the run decides
    #     its figures: the phase that Subject.unlearn repeats, Subject.other_tasks
    QUICK: Mapping[str, Any] | None = None  # its arguments in the quick set; None: it is not in it
    BY_NAME_ONLY: bool = False  # whether `all` leaves it out
    refuses: Callable[[ImageToImage], str] | None = None  # why it cannot take a model; "" if it can
    conclude: Callable[..., str] | None = None  # conclude(compared) -> a sentence for the page
    BOUNDS: Mapping[str, Any | Bounds] = dataclasses.field(default_factory=dict)


__all__ = [
    "IMAGE_SETS",
    "Audit",
    "AuditFigure",
    "Batch",
    "Finding",
    "Findings",
    "ImageSet",
    "Place",
    "Subject",
    "TaskName",
]
