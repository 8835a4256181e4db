"""Which of the classes that stay suffer: every class by itself, the worst first.

A mean over all retain images can hide that one class, similar to the forgotten ones, is damaged.
The figure is what each class lost against the original. Source: DiF3CON (arXiv 2503.06339).
"""

import numpy as np

from l2l_jax.lib import per_image
from l2l_jax.lib.placement import Compared
from l2l_jax.types import AuditFigure, Findings, Subject

TITLE = "Which of the classes that stay suffer?"
FIGURES = (
    AuditFigure("worst", "PSNR that the worst class loses against the original", "dB", 2),
    AuditFigure("loss", "PSNR that a class loses against the original", "dB", 2, over="class"),
)
SETS = ("retain_eval",)
COMPARES = ("original",)
COST = "completions of one set by two models"
QUICK: dict[str, object] = {}


def audit(subject: Subject) -> Findings:
    """No arguments."""
    images = subject.sets["retain_eval"]
    own = subject.measure(per_image.psnr, images)
    before = subject.measure(per_image.psnr, images, params=subject.others["original"])
    lost, of_class = before - own, np.array(images.classes)
    by_class = {name: lost[of_class == name] for name in np.unique(of_class)}
    worst = max(by_class, key=lambda name: float(np.mean(by_class[name])))
    yield subject.estimate("worst", np.mean, by_class[worst])
    for name, values in by_class.items():
        yield subject.estimate("loss", np.mean, values, at={"class": str(name)})


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    rows = [row for row in compared.rows if row["figure"] == "loss"]
    worst = max(rows, key=lambda row: row["values"]["unlearned"]["value"])
    value = worst["values"]["unlearned"]["value"]
    return f"The class that loses most is {worst['at']['class']}: {value:.2f} dB."
