"""Go on training with the model's own loss on the retain images, encoder and decoder.

Alone it is the naive baseline, catastrophic forgetting by neglect; after another phase it is the
knowledge retention of Varshney & Torra 2025.
"""

import jax.numpy as jnp

from l2l_jax.lib.native import native_loss
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
