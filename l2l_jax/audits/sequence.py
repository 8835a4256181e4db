"""Whether what was forgotten stays away when the model is made to forget something else.

Requests come one after the other. The run forgot its forget classes (A); now the run's own
unlearning (method, solver, tasks and optimizer of its last phase with a forget side) makes the
model forget one more class (B), with the model itself as the teacher: the retain class with most
images that also has held-out ones. Then held-out images of A are completed again. A method that
only covers A may uncover it when it covers B.

Every variant is made to forget B in the same way. The original shows what forgetting B alone costs
A, the retrained model what it costs a model that never saw A: a rise of A there is no memory. B is
forgotten in a stated number of steps, with a learning rate that decays over these; images are given
as pixels and without augmentation, and noise is drawn in each step. A run whose phases have no
forget side, such as plain training on the rest, has no unlearning to repeat. Sources: DiF3CON
(arXiv 2503.06339); issue 13 of github.com/rohitgandikota/erasing.
"""

import numpy as np

from l2l_jax.lib import per_image
from l2l_jax.lib.errors import CannotRun
from l2l_jax.lib.placement import Compared
from l2l_jax.types import AuditFigure, Bounds, Findings, ImageSet, Subject

TITLE = "Does it stay forgotten when something else is forgotten?"
FIGURES = (AuditFigure("psnr", "PSNR of unseen images", "dB", 2),)
SETS = ("forgotten", "retain_train", "retain_eval")
READS = ("unlearning",)
TRAINS = True
ATTACKS = True
COST = "unlearns one more class in 100 steps, for each variant"
BOUNDS = {"steps": Bounds(1, 10**6)}
FIRST, NEXT = "A", "B"  # the images forgotten by the run, and then


def audit(subject: Subject, *, steps: int = 100) -> Findings:
    """steps: in which the further class is forgotten."""
    train, held_out = subject.sets["retain_train"], subject.sets["retain_eval"]
    name = next_class(train, held_out)
    forget, retain = divided(train, name)
    params = subject.unlearn(forget, retain, steps)
    images = {FIRST: subject.sets["forgotten"], NEXT: divided(held_out, name)[0]}
    for of, chosen in images.items():
        for state, given in (("after", params), ("before", None)):
            values = subject.measure(per_image.psnr, chosen, params=given)
            at = {"images": of, NEXT: name, "state": state}
            yield subject.estimate("psnr", np.mean, values, at=at)


def next_class(train: ImageSet, held_out: ImageSet) -> str:
    """The class with most training images of those with held-out ones. CannotRun if none is left.

    Of several the first by name.
    """
    counts = {name: train.classes.count(name) for name in sorted(set(held_out.classes))}
    counts = {name: count for name, count in counts.items() if 0 < count < len(train)}
    if not counts:
        raise CannotRun("there is no second class to forget: the retain images are of one class")
    return max(counts, key=lambda name: counts[name])


def divided(images: ImageSet, name: str) -> tuple[ImageSet, ImageSet]:
    """(the images of a class, all others)."""
    of_class = np.array(images.classes) == name
    return images.take(np.flatnonzero(of_class)), images.take(np.flatnonzero(~of_class))


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    at = compared.headline["at"]

    def change(variant: str, of: str) -> float:
        after, before = (
            compared.value(variant, "psnr", **{**at, "images": of, "state": state})
            for state in ("after", "before")
        )
        return after - before

    return (
        f"Forgetting {at[NEXT]} as well changes the completions of what was forgotten first by "
        f"{change('unlearned', FIRST):+.2f} dB, and those of {at[NEXT]} by "
        f"{change('unlearned', NEXT):+.2f} dB."
    )
