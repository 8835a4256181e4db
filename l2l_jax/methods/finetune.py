"""Continue training on the retain images with the model's own loss, encoder and decoder.

    L_R = l(x_r)     the training loss of the model, as in methods/pretrain.py;     L_F = 0

Used alone, it is the naive baseline: forgetting happens only because the forget images are no
longer trained on. After another phase it is the knowledge retention of Varshney & Torra (arXiv
2502.04260), whose number of steps and step size were not available. The method has no arguments;
the configs set its steps and learning rate to fit the role it has.
"""

import jax.numpy as jnp

from l2l_jax.lib.objectives import training_loss
from l2l_jax.types import ImageToImage, Metrics, Params, Rng, Scalar, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain",)
TEACHER = False
MAKES_ORIGINAL = False


def objectives(
    model: ImageToImage, student: Params, teacher: Params, batch: UnlearnBatch, rng: Rng
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (training loss on retain images, 0, metrics of the model)."""
    del teacher
    loss, metrics = training_loss(model, student, batch.side("retain"), rng)
    return loss, jnp.zeros(()), metrics
