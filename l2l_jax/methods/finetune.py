"""Go on training with the model's own loss on the retain images, encoder and decoder.

    L_R = l(x_r)     what training the model minimises, as in methods/pretrain.py;     L_F = 0

Alone it is the naive baseline, catastrophic forgetting by neglect; after another phase it is the
knowledge retention of Varshney & Torra (arXiv 2502.04260), whose steps and step size were not
available: it has no arguments, and the configs give it those of the phase it stands for.
"""

import jax.numpy as jnp

from l2l_jax.lib.objectives import native_loss
from l2l_jax.types import Array, ImageToImage, Metrics, Params, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain",)
TEACHER = False
MAKES_ORIGINAL = False


def objectives(
    model: ImageToImage, student: Params, teacher: Params, batch: UnlearnBatch, rng: Array
) -> tuple[Array, Array, Metrics]:
    """(native loss on retain, 0, metrics of the model)."""
    del teacher
    loss, metrics = native_loss(model, student, batch.retain, rng)
    return loss, jnp.zeros(()), metrics
