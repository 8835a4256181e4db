"""The last layer by ridge regression: forgetting an image is exact, by subtraction.

    minimise over W, b:   mean over hidden patches |W^T f + b - y|^2 summed over images
                          + penalty |W|^2

f are the features that the last, linear layer of the decoder is given, y the patch. The solution
depends on the images through two sums (lib/ridge.py). A phase with on="all" fits the layer to all
images and keeps the sums in the workdir; a later phase with on="retain" subtracts what the forget
images added, and the result is that of fitting it to the retain images alone, up to rounding in
float64. Every image has one mask for each task of the phase, which depends on its key alone.

The guarantee is exact, for the last layer. It is one for the whole model only if the features never
saw the forget images, such as those of public weights; the record says which of the two holds.

Only models whose last layer is linear in what it is given can be fitted so: the masked autoencoder.

Source: deletion by sufficient statistics, as in Cao and Yang (IEEE S&P 2015) and Guo et al. (ICML
2020), who need no noise for ridge regression on fixed features.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from l2l_jax.lib.errors import CannotRun
from l2l_jax.lib.objectives import training_loss
from l2l_jax.lib.ridge import Sums
from l2l_jax.types import (
    Array,
    Batch,
    Bounds,
    ImageToImage,
    Metrics,
    Params,
    Rng,
    Scalar,
    UnlearnBatch,
)

TRAINABLE = ("decoder",)
SIDES = ("retain",)
TEACHER = False
BOUNDS = {"penalty": Bounds(0, 1e9, open_low=True)}
HEAD = "pred"  # of the decoder


def examples(
    model: ImageToImage, params: Params, batch: Batch, rng: Rng
) -> tuple[Float[Array, "B L D"], Float[Array, "B L P"], Bool[Array, "B L"]]:
    """(features, targets, where they count). CannotRun if the model has no linear last layer."""
    find: Any = getattr(model, "head_examples", None)
    if find is None:
        raise CannotRun("its last layer is not linear in what it is given; that of a mae is")
    inputs = model.corrupt(params, batch.images, batch.mask, rng, visible=batch.visible)
    return find(params, inputs)


def solve(sums: Sums, params: Params, *, penalty: int | float = 1.0) -> Mapping[str, np.ndarray]:
    """The values of the last layer by their names in the layout of files, float32."""
    del params
    kernel, bias = sums.solved(float(penalty))
    values = {"kernel": kernel, "bias": bias}
    return {f"decoder/{HEAD}/{name}": x.astype(np.float32) for name, x in values.items()}


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Rng,
    *,
    penalty: int | float = 1.0,
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (training loss on retain images, 0, metrics of the model), without the penalty."""
    del teacher, penalty
    loss, metrics = training_loss(model, student, batch.side("retain"), rng)
    return loss, jnp.zeros(()), metrics
