"""Train a model from scratch with its own loss: the original, or the retrained reference.

    L_R = l(x_r)     what training the model minimises: its own loss, mean over the images, and
                     terms of the whole batch if it has any;     L_F = 0

The result of this phase is the model that later phases unlearn. On all images it is the original;
on the retain split alone it is what an unlearned model is compared with. Encoder and decoder are
trained. It has no arguments; how long and how fast are the configs', with their sources.
"""

import jax.numpy as jnp

from l2l_jax.lib.objectives import native_loss
from l2l_jax.types import Array, ImageToImage, Metrics, Params, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain",)
TEACHER = False
MAKES_ORIGINAL = True


def objectives(
    model: ImageToImage, student: Params, teacher: Params, batch: UnlearnBatch, rng: Array
) -> tuple[Array, Array, Metrics]:
    """(native loss, 0, metrics of the model)."""
    del teacher
    loss, metrics = native_loss(model, student, batch.retain, rng)
    return loss, jnp.zeros(()), metrics
