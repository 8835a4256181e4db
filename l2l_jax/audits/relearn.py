"""How fast the forgotten comes back when somebody trains the model on a few forget images.

All parameters are trained with the model's own loss on k images of each forgotten class; before and
after some steps, held-out images of these classes are completed. A model that never saw them learns
them slowly; one that hides them learns them at once. The learning rate is the best of a grid for
the attacker, for each variant anew: the one with the highest mean of the curve on the same held-out
images.

If a list of images is to be forgotten, unseen images of their classes are to stay as they are. Then
the attacker has one half of the list, and images of the other half are completed.

The level after the attack depends on how good the model is in general, so compare retrained models
that complete retain images as well as the original does. Sources: DiMRA (arXiv 2512.03564), concept
resurgence (2410.08074), MemoRa (2510.03263).
"""

from collections.abc import Sequence

import numpy as np

from l2l_jax.lib.attacks import curve, few
from l2l_jax.lib.placement import Compared
from l2l_jax.types import AuditFigure, Bounds, Finding, Findings, Subject

TITLE = "Does it come back after training on a few of the images?"
FIGURES = (
    AuditFigure("psnr", "PSNR of forget images", "dB", 2, over="steps"),
    AuditFigure("area", "PSNR of forget images, mean over the attack", "dB", 2),
    AuditFigure("lr", "Learning rate of the attack", "", 5),
)
SETS = ("forget_train", "forgotten")
COST = "trains for 40 steps, for each number of images, learning rate and variant"
TRAINS = True
ATTACKS = True
QUICK = {"images_per_class": (4,), "steps": (0, 5, 10, 40), "lrs": (3e-4,)}
BOUNDS = {"images_per_class": Bounds(1, 10**6), "steps": Bounds(0, 10**6), "lrs": Bounds(0, 10)}
HEADLINE = {"images_per_class": 4, "steps": 10}


def audit(
    subject: Subject,
    *,
    images_per_class: tuple[int, ...] = (4, 1, 16, 64),
    steps: tuple[int, ...] = (0, 5, 10, 20, 40),
    lrs: tuple[float, ...] = (1e-4, 3e-4, 1e-3),
) -> Findings:
    """steps: when the held-out images are completed. lrs: the grid of learning rates."""
    known, held_out = subject.sets["forget_train"], subject.sets["forgotten"]
    if held_out.name == known.name:
        known, held_out = (known.take(range(first, len(known), 2)) for first in (0, 1))
    for each in _first(images_per_class, HEADLINE["images_per_class"]):
        images = few(known, each)
        curves = {lr: dict(curve(subject, images, held_out, steps, lr)) for lr in lrs}
        best = max(curves, key=lambda lr: float(np.mean(list(curves[lr].values()))))
        for step in _first(steps, HEADLINE["steps"]):
            at = {"images_per_class": each, "images": len(images), "steps": step}
            yield subject.estimate("psnr", np.mean, curves[best][step], at=at)
        at = {"images_per_class": each, "images": len(images)}
        whole = [np.trapezoid([curves[best][s] for s in steps], steps, axis=0)]
        length = max(steps[-1] - steps[0], 1)
        yield subject.estimate("area", np.mean, whole[0] / length, at=at)
        yield Finding("lr", best, at=at)


def _first(values: Sequence[int], wanted: int) -> list[int]:
    """The values, the wanted one first."""
    return sorted(values, key=lambda value: value != wanted)


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    at = compared.headline["at"]
    start = {**at, "steps": 0}
    before, after = (compared.value("unlearned", "psnr", **place) for place in (start, at))
    lost = compared.value("original", "psnr", **start) - before
    words = f"{at['images']} images and {at['steps']} steps"
    if lost <= 0:
        return f"{words} move it by {after - before:+.1f} dB; nothing was lost before."
    share = (after - before) / lost
    back = f"{share:.0%}" if share >= 0.005 else "nothing"
    return f"{words} bring back {back} of what was forgotten (from {before:.1f} to {after:.1f} dB)."
