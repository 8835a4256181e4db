"""Whether single images can be distinguished from unseen ones: membership inference.

The score of an image is its mean loss under many masks; a lower loss points to a member. Members
are the images to forget, non-members held-out images of the same classes.

    loss    the plain loss (Yeom et al. 2018)
    rmia    the loss relative to that of the retrained models, compared with the same of never-seen
            images: the share of those whose relative loss is higher (RMIA, arXiv 2312.03262). The
            likelihood of an image is taken to be its inverse loss.

An area under the curve of 0.5 means that nothing is distinguished; below 0.5 the images are known
by their unusually high loss: they are over-forgotten, which also identifies them. Report the images
that the original remembers best, too: a mean can hide them (U-LiRA, arXiv 2403.01218).
"""

import numpy as np
from jaxtyping import Float

from l2l_jax.lib.detection import auc, true_positive_rate
from l2l_jax.lib.per_image import mean_loss
from l2l_jax.lib.placement import Compared
from l2l_jax.types import AuditFigure, Bounds, Findings, Subject

TITLE = "Can the deleted images be distinguished from unseen ones?"
FIGURES = (
    AuditFigure("auc_loss", "AUC of membership by the loss"),
    AuditFigure("tpr_loss", "Members found by a low loss, at a false rate"),
    AuditFigure("tpr_high", "Members found by a high loss, at a false rate"),
    AuditFigure("auc_rmia", "AUC of membership relative to retrained models (RMIA)"),
    AuditFigure("auc_decile", "AUC by the loss, of the tenth that the original remembers best"),
)
SETS = ("forget_train", "forget_eval", "retain_eval")
COMPARES = ("original", "retrained")
ATTACKS = True
COST = "losses of three sets under 64 masks"
QUICK = {"draws": 18, "relative": False, "decile": False}
BOUNDS = {"draws": Bounds(1, 1000)}
FALSE_RATES = (0.01, 0.001)
Losses = Float[np.ndarray, " N"]


def audit(
    subject: Subject, *, draws: int = 64, relative: bool = True, decile: bool = True
) -> Findings:
    """draws: masks of each image, over all training tasks.

    relative: RMIA, if there is a retrained model. decile: the tenth of the images to forget whose
    loss under the original is lowest.
    """
    names = ("forget_train", "forget_eval", "retain_eval")
    sets = {name: subject.sets[name] for name in names[: 3 if relative else 2]}
    own = {name: mean_loss(subject, images, draws) for name, images in sets.items()}
    members, others = own["forget_train"], own["forget_eval"]
    yield subject.estimate("auc_loss", by_loss, members, others)
    for rate in FALSE_RATES:
        if len(others) * rate >= 1:  # else no threshold has so small a rate
            for figure, sign in (("tpr_loss", -1), ("tpr_high", 1)):
                yield subject.estimate(
                    figure,
                    lambda a, b, s=sign, r=rate: true_positive_rate(s * a, s * b, r),
                    members,
                    others,
                    at={"false_rate": rate},
                )
    references = [
        params
        for name, params in subject.others.items()
        if name.startswith("retrained") and name != subject.variant
    ]
    if relative and references:
        known = {
            name: np.mean([mean_loss(subject, images, draws, p) for p in references], axis=0)
            for name, images in sets.items()
        }
        ratios = {name: np.log(known[name] / own[name]) for name in sets}
        yield subject.estimate("auc_rmia", rmia, *(ratios[name] for name in names))
    if decile:
        before = mean_loss(subject, sets["forget_train"], draws, subject.others["original"])
        best = np.argsort(before)[: max(len(before) // 10, 1)]
        yield subject.estimate("auc_decile", by_loss, members[best], others)


def by_loss(members: Losses, others: Losses) -> float:
    """The probability that a member has a lower loss than another image."""
    return auc(-members, -others)


def rmia(members: Losses, others: Losses, population: Losses) -> float:
    """The AUC of the share of the population whose ratio an image's own exceeds."""
    ordered = np.sort(population)
    scores = [np.searchsorted(ordered, x, side="right") / len(ordered) for x in (members, others)]
    return auc(*scores)


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    value = compared.value("unlearned", "auc_loss")
    words = "have a lower loss than" if value >= 0.5 else "stand out by a higher loss than"
    share = max(value, 1 - value)
    return f"Images to forget {words} an unseen image of their classes in {share:.0%} of the pairs."
