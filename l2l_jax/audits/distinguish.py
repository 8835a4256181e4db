"""Whether the model itself shows which images it was made to forget, and what it still shows.

A logistic regression separates held-out forget images from others by the latents: what the last
block of the encoder returns, averaged over positions. It is given those of the model alone, and
those of the model and of the original side by side: somebody who has both can look for the images
whose latents moved. The area under the curve (AUC) is that of cross-validated scores. 0.5 is not
the aim: any network, a random one included, separates images of different classes; what
counts is the difference to the AUC of the retrained model. A higher one means that forgetting left
a mark (Chen et al., CCS 2021).

The second figure bounds the mutual information of an image and its completion, in nats, which the
objective of Li et al. (ICLR 2024) is about. A ridge regression reads the colours of the hidden part
from the completion's; with a Gaussian of the cross-validated error as the variational distribution
(Barber and Agakov, NIPS 2003) the bound is the sum of -1/2 log(1 - R^2) over the principal
components of the colours, each at least 0. It is a lower bound on the information in the linear
colours of 4 x 4 parts if these are Gaussian, and an index otherwise: their true entropy is lower
than a Gaussian's. It is no upper bound: what is not linear, or finer, is not counted, and 0 does
not mean that the completion tells nothing. It measures all that the visible part tells, too, so it
is compared with that of the retrained model.
"""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from l2l_jax.lib import per_image
from l2l_jax.lib.detection import auc
from l2l_jax.lib.placement import Compared
from l2l_jax.types import AuditFigure, Bounds, Findings, Subject

TITLE = "Does the model tell which images it was made to forget?"
FIGURES = (
    AuditFigure("auc", "AUC of forget images against others, read from the latents"),
    AuditFigure("information", "What a completion tells of its image, at least", "nats", 2),
)
SETS = ("forget_eval", "retain_eval", "other")
COMPARES = ("original",)
ATTACKS = True
COST = "latents of three sets, completions of two; fits linear models"
BOUNDS = {"folds": Bounds(2, 100)}
STRENGTHS = np.logspace(-2, 4, 7)  # of the ridge regression's regularisation
SMALLEST_SHARE = 1e-6  # of the variance; components with less are left out
Features = Float[np.ndarray, "N D"]


def audit(subject: Subject, *, folds: int = 5) -> Findings:
    """folds: of the cross-validation."""
    original = subject.others["original"]
    own = {name: subject.measure(per_image.encoder_end, x) for name, x in subject.sets.items()}
    both = {
        name: np.hstack([own[name], subject.measure(per_image.encoder_end, x, params=original)])
        for name, x in subject.sets.items()
    }
    for latents, found in (("own", own), ("own and original's", both)):
        for against in ("other", "retain_eval"):
            scores = held_out_scores(found["forget_eval"], found[against], folds, subject.seed)
            at = {"against": against, "latents": latents}
            yield subject.estimate("auc", auc, *scores, at=at)
    for name in ("forget_eval", "retain_eval"):
        images = subject.sets[name]
        real = components(subject.measure(per_image.hidden_colours, images))
        made = subject.measure(per_image.completed_colours, images)
        read = held_out_reading(made, real, folds, subject.seed)
        pair = np.stack([real, read], axis=1)
        yield subject.estimate("information", information, pair, at={"images": name})


def held_out_scores(
    positives: Features, negatives: Features, folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """How much each image looks like a positive one, by models that were not fitted to it."""
    from sklearn.exceptions import ConvergenceWarning  # here because importing takes a second
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([positives, negatives])
    labels = np.repeat([1, 0], [len(positives), len(negatives)])
    folds = min(folds, len(positives), len(negatives))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    reader = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = np.asarray(
            cross_val_predict(reader, features, labels, cv=split, method="decision_function")
        )
    return scores[: len(positives)], scores[len(positives) :]


def components(colours: Features) -> Features:
    """The principal components of the colours: a rotation, so that they are not correlated."""
    centred = colours - colours.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    kept = sizes**2 > SMALLEST_SHARE * max(float(np.sum(sizes**2)), 1e-30)
    return centred @ axes[kept].T


def held_out_reading(made: Features, real: Features, folds: int, seed: int) -> Features:
    """What ridge regressions that were not fitted to an image read of it from its completion."""
    from sklearn.linear_model import RidgeCV  # here because importing takes a second
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    strengths: Any = STRENGTHS
    reader = make_pipeline(StandardScaler(), RidgeCV(strengths))
    split = KFold(min(folds, len(real)), shuffle=True, random_state=seed)
    return np.asarray(cross_val_predict(reader, made, real, cv=split)).reshape(real.shape)


def information(pair: Float[np.ndarray, "N 2 D"]) -> float:
    """Sum of -1/2 log(1 - R^2) over the columns, each at least 0; pair: values and readings."""
    real, read = pair[:, 0], pair[:, 1]
    left = np.sum((real - read) ** 2, axis=0)
    spread = np.maximum(np.sum((real - real.mean(axis=0)) ** 2, axis=0), 1e-30)
    return float(-0.5 * np.sum(np.log(np.clip(left / spread, 1e-12, 1.0))))


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    at = compared.headline["at"]
    own, aim = compared.value("unlearned", "auc", **at), compared.reference("auc", **at)
    words = f"By its latents, forget images and another data set have an AUC of {own:.3f}"
    before = compared.value("original", "auc", **at)
    end = f"; by the retrained model's {aim:.3f}" if aim is not None else ""
    return f"{words}{end}; by the original's {before:.3f}."
