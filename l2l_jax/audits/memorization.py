"""Whether the model knows the very images to forget better than unseen images of their classes.

The gap is the mean of a figure over the images to forget minus its mean over as many held-out
images of the same classes. Nothing that never saw the images has a gap, but for chance. Only the
model's own errors are compared: a feature network may have been trained on these very images.
Source: RULI (arXiv 2506.13009), which argues for figures of the very images.
"""

import numpy as np

from l2l_jax.lib import per_image
from l2l_jax.lib.per_image import mean_loss
from l2l_jax.lib.placement import Compared
from l2l_jax.types import AuditFigure, Bounds, Findings, Subject

TITLE = "Does it know the very images better than unseen ones?"
FIGURES = (
    AuditFigure("psnr_gap", "PSNR of the images to forget, minus that of unseen ones", "dB", 2),
    AuditFigure("loss_gap", "Loss of unseen images, minus that of the images to forget", "", 4),
    AuditFigure("psnr", "PSNR of the images to forget", "dB", 2),
)
SETS = ("forget_train", "forget_eval")
ATTACKS = True
COST = "completions of two sets, and losses under a few masks"
QUICK = {"draws": 4}
BOUNDS = {"draws": Bounds(1, 1000)}


def audit(subject: Subject, *, draws: int = 16) -> Findings:
    """draws: masks under which the loss of each image is measured, over all training tasks."""
    seen, unseen = subject.sets["forget_train"], subject.sets["forget_eval"]
    count = min(len(seen), len(unseen))  # a mean over more images would vary less
    seen, unseen = seen.take(np.arange(count)), unseen.take(np.arange(count))
    psnr = [subject.measure(per_image.psnr, images) for images in (seen, unseen)]
    losses = [mean_loss(subject, images, draws) for images in (seen, unseen)]
    yield subject.estimate("psnr_gap", lambda a, b: np.mean(a) - np.mean(b), *psnr)
    yield subject.estimate("loss_gap", lambda a, b: np.mean(b) - np.mean(a), *losses)
    yield subject.estimate("psnr", np.mean, psnr[0])


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    gap = compared.value("unlearned", "psnr_gap")
    before = compared.value("original", "psnr_gap")
    return (
        f"It completes the images to forget {_than(gap)} than unseen images of their classes, and "
        f"the original {_than(before)}."
    )


def _than(gap: float) -> str:
    return f"{abs(gap):.2f} dB {'better' if gap >= 0 else 'worse'}"
