"""What the latents still tell: classes and hidden pixels, read from every block by linear models.

A multinomial logistic regression reads the class of an image from what a block returns (averaged
over positions); its accuracy on unseen images of the forgotten classes is compared with that of a
retrained model. Chance is not the baseline: even a random network lets classes be read. A ridge
regression reads the colours of the hidden part (R^2). CKA says how similar a block is to the same
block of the original and of the retrained models (Kornblith et al. 2019, linear kernel).
Sources: Mirage (arXiv 2605.20282), Erase at the Core (2602.05375), 2604.08271.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from l2l_jax.lib import per_image
from l2l_jax.lib.errors import CannotRun
from l2l_jax.lib.placement import Compared
from l2l_jax.types import AuditFigure, Bounds, Findings, ImageSet, Params, Subject

TITLE = "Do the latents still tell the forgotten classes?"
FIGURES = (
    AuditFigure("accuracy", "Forgotten classes read from a block", over="block"),
    AuditFigure("r2", "Hidden colours of unseen forget images read from a block", over="block"),
    AuditFigure("cka_original", "Similarity to the original's block (CKA)", over="block"),
    AuditFigure("cka_retrained", "Similarity to the retrained model's block (CKA)", over="block"),
)
SETS = ("forget_train", "retain_train", "forget_eval", "retain_eval")
COMPARES = ("original", "retrained")
ATTACKS = True
COST = "one pass over four sets; fits two linear models for each block"
QUICK = {"blocks": 3, "similarity": False, "colours": False}
BOUNDS = {"blocks": Bounds(0, 10_000), "folds": Bounds(2, 100)}
STRENGTHS = np.logspace(-3, 1, 5)  # inverse strengths of the regularisation of both regressions
Blocks = dict[str, Float[np.ndarray, "N D"]]


def audit(
    subject: Subject,
    *,
    blocks: int = 0,
    folds: int = 3,
    similarity: bool = True,
    colours: bool = True,
) -> Findings:
    """blocks: how many of the blocks, evenly spaced, the last of the encoder first; 0 = all.

    folds: of the cross-validation that chooses the strength of the regularisation.
    """
    sets = subject.sets
    fit = [sets["forget_train"], sets["retain_train"]]
    labels = np.array([name for images in fit for name in images.classes])
    inside, outside = (joined(subject, images) for images in (fit, [sets["forget_eval"]]))
    unseen = np.array(sets["forget_eval"].classes)
    names = chosen(list(inside), blocks)
    for name in names:
        right = class_reader(inside[name], labels, folds).predict(outside[name]) == unseen
        yield subject.estimate("accuracy", np.mean, right.astype(float), at={"block": name})
    if colours:
        real = np.concatenate([subject.measure(per_image.hidden_colours, x) for x in fit])
        hidden = subject.measure(per_image.hidden_colours, sets["forget_eval"])
        for name in names:
            read = colour_reader(inside[name], real).predict(outside[name])
            yield subject.estimate("r2", explained, hidden, read, at={"block": name})
    if similarity:
        yield from _similarities(subject, names)


def joined(subject: Subject, sets: list[ImageSet], params: Params | None = None) -> Blocks:
    """{block: what it returns for the images of all sets}."""
    found = [subject.measure(per_image.activations, images, params=params) for images in sets]
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def chosen(names: list[str], count: int) -> list[str]:
    """`count` blocks, evenly spaced from the first to the last; the encoder's last one first."""
    ordered = sorted(
        names, key=lambda name: (not name.startswith("encoder"), per_image.block_number(name))
    )
    encoder = [name for name in ordered if name.startswith("encoder")]
    if count and count < len(encoder):
        picked = {encoder[round(at)] for at in np.linspace(len(encoder) - 1, 0, count)}
        ordered = [name for name in encoder if name in picked]
    return sorted(ordered, key=lambda name: name != encoder[-1])


def class_reader(features: Float[np.ndarray, "N D"], labels: np.ndarray, folds: int) -> Any:
    """A logistic regression fitted to the features; its strength is chosen by cross-validation."""
    from sklearn.exceptions import ConvergenceWarning  # here because importing takes a second
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    smallest = int(np.unique(labels, return_counts=True)[1].min())
    folds = min(folds, smallest)
    if folds < 2:
        raise CannotRun(f"a class has only {smallest} image to fit to")
    strengths: Any = STRENGTHS
    regression = LogisticRegressionCV(Cs=strengths, cv=folds, max_iter=300)
    reader = make_pipeline(StandardScaler(), regression)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)
        return reader.fit(features, labels)


def colour_reader(features: Float[np.ndarray, "N D"], colours: np.ndarray) -> Any:
    """A ridge regression fitted to the features; its strength is chosen by leaving images out."""
    from sklearn.linear_model import RidgeCV  # here because importing takes a second
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    strengths: Any = 1 / STRENGTHS
    return make_pipeline(StandardScaler(), RidgeCV(strengths)).fit(features, colours)


def explained(real: Float[np.ndarray, "N D"], read: Float[np.ndarray, "N D"]) -> float:
    """R^2: the share of the variance of all colours that is explained."""
    return float(1 - np.sum((real - read) ** 2) / np.sum((real - real.mean(axis=0)) ** 2))


def _similarities(subject: Subject, names: list[str]) -> Findings:
    sets = [subject.sets["forget_eval"], subject.sets["retain_eval"]]
    own = joined(subject, sets)
    for other in ("original", "retrained"):
        if other in subject.others:
            theirs = (
                own if subject.variant == other else joined(subject, sets, subject.others[other])
            )
            for name in names:
                pair = own[name], theirs[name]
                yield subject.estimate(
                    f"cka_{other}", _paired(cka), np.hstack(pair), at={"block": name}
                )


def cka(x: Float[np.ndarray, "N D"], y: Float[np.ndarray, "N E"]) -> float:
    """Linear centred kernel alignment of two representations of the same images, in [0, 1]."""
    x, y = (a - a.mean(axis=0) for a in (x, y))
    both, own = np.sum((y.T @ x) ** 2), [np.linalg.norm(a.T @ a) for a in (x, y)]
    return float(both / max(own[0] * own[1], 1e-30))


def _paired(function: Callable[..., float]) -> Callable[..., float]:
    """A function of two arrays as one of both side by side, so that their rows stay together."""

    def of(both: np.ndarray) -> float:
        half = both.shape[1] // 2
        return function(both[:, :half], both[:, half:])

    return of


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    at = compared.headline["at"]
    own = compared.value("unlearned", "accuracy", **at)
    words = f"A linear reader of block {at['block']} finds the forgotten classes in {own:.0%}"
    aim = compared.reference("accuracy", **at)
    before = compared.value("original", "accuracy", **at)
    end = f"; of the original {before:.0%}"
    return words + end + (f", of the retrained model {aim:.0%}." if aim is not None else ".")
