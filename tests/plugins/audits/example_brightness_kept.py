"""Example audit: whether completions of the images to forget are as bright as the images."""

import jax.numpy as jnp
import numpy as np

from l2l_jax.types import AuditFigure, Batch, Findings, ImageToImage, Params, PerImage, Rng, Subject

TITLE = "Does it still know how bright the images are?"
FIGURES = (AuditFigure("difference", "brightness of completions, minus that of the images"),)
SETS = ("forget_train",)
COST = "completions of one set"


def audit(subject: Subject) -> Findings:
    """The mean difference, in [-1, 1]."""
    values = subject.measure(brighter, subject.sets["forget_train"])
    yield subject.estimate("difference", np.mean, values)


def brighter(model: ImageToImage, params: Params, batch: Batch, rng: Rng) -> PerImage:
    """[B] by how much the completion is brighter than the image."""
    made = model.reconstruct(params, batch.images, batch.mask, rng, batch.visible)
    return jnp.mean(made - batch.images, axis=(1, 2, 3))
