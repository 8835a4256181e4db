"""Whether the forgotten comes back when somebody trains the model on other images only.

The attacker adds no knowledge of the forgotten images: what comes back was there. The model is
trained with its own loss on retain images, and on another data set, and completes held-out images
of the forgotten classes on the way. Source: concept resurgence (arXiv 2410.08074).
"""

import numpy as np

from l2l_jax.lib.attacks import curve
from l2l_jax.lib.errors import CannotRun
from l2l_jax.lib.placement import Compared
from l2l_jax.types import AuditFigure, Bounds, Findings, Subject

TITLE = "Does it come back after training on other images only?"
FIGURES = (AuditFigure("psnr", "PSNR of forget images", "dB", 2, over="steps"),)
SETS = ("forgotten",)
OPTIONAL = ("retain_train", "other")
COST = "trains for 40 steps on each of the two sets, for each variant"
TRAINS = True
ATTACKS = True
QUICK = {"sources": ("retain_train",), "steps": (0, 40)}
BOUNDS = {
    "sources": Bounds(choices=("retain_train", "other")),
    "steps": Bounds(0, 10**6),
    "lr": Bounds(0, 10),
}


def audit(
    subject: Subject,
    *,
    sources: tuple[str, ...] = ("retain_train", "other"),
    steps: tuple[int, ...] = (0, 10, 40),
    lr: float = 3e-4,
) -> Findings:
    """sources: the sets that the model is trained on. steps: when it completes the images."""
    held_out = subject.sets["forgotten"]
    if not (there := [source for source in sources if source in subject.sets]):
        raise CannotRun(f"there are no images {' or '.join(sources)} to train on")
    for source in there:
        found = dict(curve(subject, subject.sets[source], held_out, steps, lr))
        for step in sorted(steps, reverse=True):
            at = {"trained_on": source, "steps": step}
            yield subject.estimate("psnr", np.mean, found[step], at=at)


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    at = compared.headline["at"]
    before = compared.value("unlearned", "psnr", **{**at, "steps": 0})
    after = compared.value("unlearned", "psnr", **at)
    words = "retain images" if at["trained_on"] == "retain_train" else "another data set"
    return (
        f"{at['steps']} steps on {words}, without any forget image, change the completions of "
        f"forget images by {after - before:+.1f} dB."
    )
