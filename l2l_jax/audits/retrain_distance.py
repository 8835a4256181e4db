"""How far the completions are from those of a retrained model, in units of what a seed changes.

The distance is the root mean square over hidden pixels, the mean over images and retrained models,
divided by that of two retrained models to each other (the floor): at 1 the model is as close as
another retraining. Two figures compare the model's per-image losses with those of the
retrained models as a distribution: the Kolmogorov-Smirnov statistic, and the squared maximum mean
discrepancy (MMD) with a Gaussian kernel whose width is the median distance. A model can have the
mean loss of a retrained one and another spread.

A retrained model is compared with the other retrained models. With a single one there is no floor,
and only the plain distance is given: it counts what another initialisation changes as memory, and
that of the retrained model itself is 0 because it is compared with itself. Sources: FADE (arXiv
2510.12981), RULI (2506.13009).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import ks_2samp

from l2l_jax.lib import per_image
from l2l_jax.lib.errors import CannotRun
from l2l_jax.lib.per_image import mean_loss
from l2l_jax.lib.placement import REFERENCE, Compared
from l2l_jax.types import AuditFigure, Bounds, Findings, ImageSet, Params, Subject

TITLE = "How far is it from a retrained model?"
FIGURES = (
    AuditFigure("ratio", "Distance to retrained models, over that between two of them", "", 2),
    AuditFigure("distance", "Distance of completions to retrained models", "", 4),
    AuditFigure("ks", "Losses beside those of retrained models (Kolmogorov-Smirnov)"),
    AuditFigure("mmd", "Losses beside those of retrained models (squared MMD)", "", 4),
)
SETS = ("forget_eval", "forget_train")
COMPARES = ("retrained",)
COST = "completions and losses of two sets by the model and every retrained one"
BOUNDS = {"draws": Bounds(1, 1000)}
Losses = Float[np.ndarray, " N"]


def audit(subject: Subject, *, draws: int = 16) -> Findings:
    """draws: masks under which the loss of each image is measured, over all training tasks."""
    references = retrained(subject)
    if not references:
        raise CannotRun("there is no retrained model: config.reference names none")
    for name in SETS:
        images, at = subject.sets[name], {"images": name}
        own, each, floor = distances(subject, images, references)
        if len(references) > 1:
            both = np.stack([own, floor], axis=1)
            yield subject.estimate("ratio", lambda x: x[:, 0].mean() / x[:, 1].mean(), both, at=at)
        yield subject.estimate("distance", np.mean, own, at=at)
        if len(references) > 1:
            losses = [mean_loss(subject, images, draws, references[other]) for other in each]
            rows = np.stack([mean_loss(subject, images, draws), *losses], axis=1)
            width = kernel_width(rows.ravel())
            yield subject.estimate("ks", lambda x: ks(x[:, 0], x[:, 1:].ravel()), rows, at=at)
            yield subject.estimate(
                "mmd", lambda x, w=width: mmd(x[:, 0], x[:, 1:].ravel(), w), rows, at=at
            )


def retrained(subject: Subject) -> dict[str, Params]:
    """The retrained models, the examined one included."""
    known = dict(subject.others) | {subject.variant: subject.params}
    return {name: known[name] for name in sorted(known) if name.startswith(REFERENCE)}


def distances(
    subject: Subject, images: ImageSet, references: dict[str, Params]
) -> tuple[Losses, list[str], Losses]:
    """(distance [N] to the retrained models, which they are, distance [N] between these pairs).

    A retrained model is compared with the others; if there are none, with itself.
    """
    made = {
        name: subject.measure(per_image.completed, images, params=params)
        for name, params in (references | {subject.variant: subject.params}).items()
    }
    hidden = subject.measure(per_image.hidden, images)
    apart = {
        pair: rms(made[pair[0]], made[pair[1]], hidden)
        for pair in itertools.combinations_with_replacement(sorted(made), 2)
    }
    each = [name for name in references if name != subject.variant] or list(references)
    pairs = itertools.combinations(references, 2)
    own = [apart[min(name, subject.variant), max(name, subject.variant)] for name in each]
    floor = [apart[pair] for pair in pairs] or [np.zeros(len(images))]
    return np.mean(own, axis=0), each, np.mean(floor, axis=0)


def rms(
    one: Float[np.ndarray, "N H W 3"], other: Float[np.ndarray, "N H W 3"], hidden: np.ndarray
) -> Losses:
    """The root mean square difference over the hidden pixels of each image."""
    squares = np.sum(np.where(hidden, (one - other) ** 2, 0), axis=(1, 2, 3))
    return np.sqrt(squares / np.maximum(3 * hidden.sum(axis=(1, 2, 3)), 1))


def ks(one: Losses, other: Losses) -> float:
    """The largest difference of the two distribution functions, in [0, 1]."""
    found: Any = ks_2samp(one, other)
    return float(found.statistic)


def kernel_width(values: Losses) -> float:
    """The median distance of two different values."""
    apart = np.abs(values[:, None] - values)[np.triu_indices(len(values), 1)]
    return float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0


def mmd(one: Losses, other: Losses, width: float) -> float:
    """The squared maximum mean discrepancy of two samples, 0 if they are equal."""

    def mean_kernel(x: Losses, y: Losses) -> float:
        return float(np.mean(np.exp(-((x[:, None] - y) ** 2) / (2 * width**2))))

    within: Sequence[float] = [mean_kernel(x, x) for x in (one, other)]
    return sum(within) - 2 * mean_kernel(one, other)


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    figure, at = compared.headline["figure"], compared.headline["at"]
    own, before = (compared.value(name, figure, **at) for name in ("unlearned", "original"))
    if figure == "ratio":
        return (
            f"Its completions are {own:.2f} times as far from a retrained model as two retrained "
            f"models are from each other; those of the original {before:.2f} times."
        )
    return (
        f"Its completions are {own:.4f} away from the retrained model, those of the original "
        f"{before:.4f}; how far two retrained models are apart is not known."
    )
