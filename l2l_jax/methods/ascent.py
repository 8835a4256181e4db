"""Decoupling by gradient ascent (Varshney & Torra, arXiv 2502.04260, first part).

    maximise  l(x_f)   over encoder and decoder
    until     moved = |h(T(x_f)) - h0(T(x_f))|_2 / sqrt(n)  >=  lambda,  or T steps

l is the model's own loss, h = D . E . T the model's output, h0 the output of the original model.
The norm is taken over the n output values on which the loss is defined (all pixels, hidden patches,
the hole; the probabilities of masked tokens). The other values are not trained and may differ
arbitrarily between two models. In a step, moved is the mean over the forget images of its batch.
It depends on the task: one task may hide easier parts than another. Therefore the mean of moved
over the last step of every task of the phase is compared with lambda. The step that finds it >=
lambda, and every later step, leaves the parameters unchanged. Knowledge retention, the second part
of the paper, is methods/finetune.py in a phase of its own.

`lam` is lambda. With lam = 0 and retrained models in config.reference, lambda is measured over the
same tasks, all equally often (engine/measure.py): it is the mean of moved with a retrained model in
place of the student, which is what lambda stands for. This distance contains what another seed
changes. With two or more retrained models, that part is measured as their mean distance to each
other, and subtracted. With lam = 0 and no reference, the phase runs all T steps. The paper's
values of T, lambda, step size and clipping were not available. l has no upper bound, so
optimizer.clip bounds its gradient: the form word `ascent` of the configs sets it to 1.0, and sets a
learning rate ten times smaller than that of L2L, because AdamW makes every update about as long as
the learning rate and one long update could jump over lambda. The paper's (epsilon, delta) guarantee
is not reproduced: ascent alone bounds no distance to the retrained model.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.objectives import output_distance
from l2l_jax.types import Bounds, ImageToImage, Metrics, Outputs, Params, Rng, Scalar, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("forget",)
TEACHER = True
MAKES_ORIGINAL = False
UNTIL = ("moved", "lam")  # the phase ends when this metric reaches this argument, if that is not 0
BOUNDS = {"lam": Bounds(0)}  # 0: no limit


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Rng,
    *,
    lam: int | float = 0.0,
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (0, minus the loss on forget images, {"moved", "lambda"})."""
    if not lam >= 0:
        raise ConfigError(
            f"ascent: lam={lam} is how far outputs may move, 0 or more; 0 sets no limit."
        )
    forget, key = batch.side("forget"), rngs.fold(rng, "forget")
    inputs = model.corrupt(teacher, forget.images, forget.mask, key, visible=forget.visible)

    def outputs(params: Params) -> Outputs:
        """Pixels, or probabilities of tokens; no gradient."""
        decoded = jax.lax.stop_gradient(model.decode(params, model.encode(params, inputs), inputs))
        return jax.nn.softmax(decoded) if model.takes_tokens else decoded

    squared = output_distance(outputs(student), outputs(teacher), model.loss_mask(inputs))
    moved = jnp.mean(jnp.sqrt(squared))
    loss = jnp.mean(model.loss(student, inputs))
    return jnp.zeros(()), -loss, {"moved": moved, "lambda": jnp.float32(lam)}
