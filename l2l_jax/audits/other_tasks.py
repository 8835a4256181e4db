"""Whether the forgotten comes back when the question is put in another way.

A method that only spoils the questions it was trained on is found out by others: holes of another
shape, from the tasks that neither training nor evaluation of the run uses, and images that are
mirrored, inverted, shifted by an eighth of the side, tinted, or noisy. A transformed image is
completed to the transformed image.

Some questions are harder for every model, so what counts is the gain over what the same question
costs the original; the sentence reports it, and the place between retrained model and original does
not depend on it. Completing from a partly noised hole is not asked of diffusion models: the
interface of models has no sampler that starts in the middle. Sources: arXiv 2505.17013 (in-painting
as a probe), FADE (2510.12981).
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from l2l_jax.lib import per_image
from l2l_jax.lib.placement import Compared
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import AuditFigure, Bounds, Findings, Subject

TITLE = "Does it come back when it is asked in another way?"
FIGURES = (AuditFigure("psnr", "PSNR of forget images", "dB", 2),)
SETS = ("forgotten",)
READS = ("other_tasks",)
ATTACKS = True
COST = "completions of one set for each question"
Pictures = UInt8[np.ndarray, "N H W 3"]
TINT = (1.0, 0.75, 0.5)  # what each colour channel is multiplied with
PLAIN = "as evaluated"


def mirrored(images: Pictures, seed: int) -> Pictures:
    """Left and right exchanged."""
    del seed
    return np.ascontiguousarray(images[:, :, ::-1])


def inverted(images: Pictures, seed: int) -> Pictures:
    """Every value subtracted from white."""
    del seed
    return 255 - images


def shifted(images: Pictures, seed: int) -> Pictures:
    """Moved to the right by an eighth of the side; the left edge is repeated."""
    del seed
    width = images.shape[2]
    return images[:, :, np.maximum(np.arange(width) - width // 8, 0)]


def tinted(images: Pictures, seed: int) -> Pictures:
    """Green and blue darkened."""
    del seed
    return np.rint(images * np.array(TINT)).astype(np.uint8)


def noisy(images: Pictures, seed: int) -> Pictures:
    """With Gaussian noise of standard deviation 0.1, clipped."""
    noise = 25.5 * np.random.default_rng(seed).standard_normal(images.shape)
    return np.rint(np.clip(images + noise, 0, 255)).astype(np.uint8)


TRANSFORMS: dict[str, Callable[[Pictures, int], Pictures]] = {
    each.__name__: each for each in (mirrored, inverted, shifted, tinted, noisy)
}
BOUNDS = {"transforms": Bounds(choices=tuple(TRANSFORMS))}


def audit(
    subject: Subject, *, transforms: tuple[str, ...] = tuple(TRANSFORMS), tasks: bool = True
) -> Findings:
    """transforms: changes of the images. tasks: whether holes of other tasks are asked about."""
    images = subject.sets["forgotten"]
    for name in transforms:
        seed = seed_of(subject.seed, "audit", "transform", name)
        changed = dataclasses.replace(images, images=TRANSFORMS[name](images.images, seed))
        values = subject.measure(per_image.psnr, changed)
        yield subject.estimate("psnr", np.mean, values, at={"question": f"{name} images"})
    for name, task in subject.other_tasks.items() if tasks else ():
        values = subject.measure(per_image.psnr, images, task=task)
        yield subject.estimate("psnr", np.mean, values, at={"question": f"task {name}"})
    values = subject.measure(per_image.psnr, images)
    yield subject.estimate("psnr", np.mean, values, at={"question": PLAIN})


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    gains = {}
    for row in compared.rows:
        own, before = (row["values"][name]["value"] for name in ("unlearned", "original"))
        gains[row["at"]["question"]] = own - before
    plain = gains.pop(PLAIN)
    if not gains:
        return "No other question was asked."
    best = max(gains, key=lambda name: gains[name])
    return (
        f"The question that brings back most is {best}: {gains[best] - plain:+.2f} dB beyond what "
        "it changes for the original."
    )
