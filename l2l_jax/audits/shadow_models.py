"""Whether the method leaves traces of single images, judged by shadow models (U-LiRA).

Mean losses of a set can look right while single images stand out. This audit attacks the method
image by image, with distributions of the loss of each image under models that did and did not
learn it (U-LiRA: Hayes et al., arXiv 2403.01218, after LiRA, arXiv 2112.03570).

The targets are images to forget and held-out images of their classes. Every shadow model starts at
the first retrained model, which saw none of them, and is trained on one random half of the targets
and on retain images. Shadow models come in pairs with complementary halves, so that each target is
learned by half of them. Then the run's own unlearning forgets what each of them learned. For each
shadow model in turn the attack asks which targets it had learned: the log loss of a target is
compared with two normal distributions, of the other shadow models that learned it and of those that
did not. Their means are those of the target; with few shadow models their deviations are pooled
over targets, as in LiRA. The columns of the table mean here

    original     shadow models before unlearning: everything can be known
    unlearned    shadow models after the run's own unlearning
    retrained    shadow models that were trained on the retain images alone: 0.5 but for chance

The audit trains models of its own and says more about the method than about the finished model. It
takes models of at most MAX_PARAMETERS parameters.
"""

import numpy as np
from jaxtyping import Bool, Float

from l2l_jax.lib import trees
from l2l_jax.lib.attacks import joined
from l2l_jax.lib.detection import auc
from l2l_jax.lib.errors import CannotRun
from l2l_jax.lib.per_image import mean_loss
from l2l_jax.lib.placement import Compared
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import (
    AuditFigure,
    Bounds,
    Findings,
    ImageSet,
    ImageToImage,
    Params,
    Subject,
)

TITLE = "Does the method leave traces of single images?"
FIGURES = (AuditFigure("auc", "AUC of the likelihood ratio of images learned and unlearned"),)
SETS = ("forget_train", "forget_eval", "retain_train")
COMPARES = ("retrained",)
READS = ("unlearning",)
TRAINS = True
ATTACKS = True
COST = "trains and unlearns 8 shadow models for each variant; small models only"
BOUNDS = {
    "models": Bounds(6, 256),
    "steps": Bounds(1, 10**6),
    "unlearn_steps": Bounds(1, 10**6),
    "lr": Bounds(0, 10),
    "draws": Bounds(1, 1000),
}
MAX_PARAMETERS = 1_000_000
MIN_DEVIATION = 1e-6  # of log losses
Scores = Float[np.ndarray, "N M"]  # of N targets under M shadow models
Learned = Bool[np.ndarray, "N M"]


def audit(
    subject: Subject,
    *,
    models: int = 8,
    steps: int = 400,
    unlearn_steps: int = 100,
    lr: float = 3e-4,
    draws: int = 18,
) -> Findings:
    """models: shadow models, an even number of at least 6. draws: masks of each target.

    steps, lr: of the training on a half of the targets.
    """
    if models % 2:
        raise CannotRun(f"models={models}: shadow models come in pairs, so their number is even")
    if (start := subject.others.get("retrained")) is None:
        raise CannotRun(
            "shadow models start at a model that saw none of the images to forget: name a "
            "retrained model in config.reference"
        )
    targets = joined("forget_train", subject.sets["forget_train"], subject.sets["forget_eval"])
    learned = halves(len(targets), models, seed_of(subject.seed, "audit", "shadow models"))
    scores = np.empty(learned.shape)
    for model in range(models):
        if subject.variant.startswith("retrained"):
            order = seed_of(subject.seed, "audit", "shadow models", model)
            params = clean(subject, start, steps, lr, order)
        else:
            half = targets.take(np.flatnonzero(learned[:, model]))
            params = shadow(subject, half, start, steps, unlearn_steps, lr)
        scores[:, model] = np.log(mean_loss(subject, targets, draws, params))
    scores -= scores.mean(axis=0)  # what a model does to all targets says nothing about one
    both = np.stack([scores, learned], axis=-1)
    yield subject.estimate("auc", lambda rows: attacked(rows[..., 0], rows[..., 1] > 0), both)


def refuses(model: ImageToImage) -> str:
    """Why a model cannot be taken."""
    count = trees.count(model.template)
    if count <= MAX_PARAMETERS:
        return ""
    return (
        f"it trains many models, and takes one of at most {MAX_PARAMETERS:,} parameters; this one "
        f"has {count:,}"
    )


def shadow(
    subject: Subject, half: ImageSet, start: Params, steps: int, unlearn_steps: int, lr: float
) -> Params:
    """A shadow model before or after unlearning one half of the targets."""
    retain = subject.sets["retain_train"]
    both = joined("retain_train", retain, half)
    _, source = next(subject.attack(both, (steps,), lr=lr, start=start))
    if subject.variant == "original":
        return source
    return subject.unlearn(half, retain, unlearn_steps, start=source)


def clean(subject: Subject, start: Params, steps: int, lr: float, seed: int) -> Params:
    """A shadow model that learned no target, by the retain images in an order of its own."""
    retain = subject.sets["retain_train"]
    mixed = retain.take(np.random.default_rng(seed).permutation(len(retain)))
    return next(subject.attack(mixed, (steps,), lr=lr, start=start))[1]


def halves(targets: int, models: int, seed: int) -> Learned:
    """Which model learns which target; models 2k and 2k + 1 learn complementary halves."""
    rng, learned = np.random.default_rng(seed), np.zeros((targets, models), bool)
    for pair in range(0, models, 2):
        mixed = rng.permutation(targets)
        learned[mixed[: targets // 2], pair] = True
        learned[:, pair + 1] = ~learned[:, pair]
    return learned


def attacked(scores: Scores, learned: Learned) -> float:
    """The AUC over all targets and shadow models of the likelihood ratio of having been learned.

    Each shadow model is judged by the others only.
    """
    models = range(scores.shape[1])
    ratios = np.stack([ratio(scores, learned, model) for model in models], axis=1)
    return auc(ratios[learned], ratios[~learned])


def ratio(scores: Scores, learned: Learned, model: int) -> Float[np.ndarray, " N"]:
    """The log likelihood ratio of each target under one model, by the scores of the others.

    The model with the complementary half is left out, too: each target is then learned by exactly
    half of those that remain. Otherwise the numbers alone would point away from the answer.
    """
    others = np.arange(scores.shape[1]) // 2 != model // 2
    score, logs = scores[:, model], []
    for kind in (learned[:, others], ~learned[:, others]):
        known = np.where(kind, scores[:, others], np.nan)
        means, count = np.nanmean(known, axis=1), len(kind[0]) // 2
        left = len(means) * (count - 1)  # degrees of freedom of the pooled deviation
        spread = max(float(np.sqrt(np.nansum((known - means[:, None]) ** 2) / left)), MIN_DEVIATION)
        logs.append(-((score - means) ** 2) / (2 * spread**2) - np.log(spread))
    return logs[0] - logs[1]


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    before, after = (compared.value(name, "auc") for name in ("original", "unlearned"))
    return (
        f"An attacker with shadow models identifies single images with an AUC of {before:.2f} "
        f"before unlearning and {after:.2f} after it; 0.5 is chance."
    )
