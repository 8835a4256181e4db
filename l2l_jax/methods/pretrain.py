"""Train a model from scratch with its own loss: the original model, or the retrained one.

    L_R = l(x_r)     the training loss of the model: the mean of its own loss over the images, plus
                     terms of the whole batch if the model has any;     L_F = 0

The result of this phase is the model that later phases unlearn. Trained on all images it is the
original; trained on the retain split alone it is the retrained model that unlearned models are
compared with. Encoder and decoder are trained. The method has no arguments; the configs set steps
and learning rate and name their sources.
"""

import jax.numpy as jnp

from l2l_jax.lib.objectives import training_loss
from l2l_jax.types import ImageToImage, Metrics, Params, Rng, Scalar, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain",)
TEACHER = False
MAKES_ORIGINAL = True


def objectives(
    model: ImageToImage, student: Params, teacher: Params, batch: UnlearnBatch, rng: Rng
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (training loss, 0, metrics of the model)."""
    del teacher
    loss, metrics = training_loss(model, student, batch.side("retain"), rng)
    return loss, jnp.zeros(()), metrics
