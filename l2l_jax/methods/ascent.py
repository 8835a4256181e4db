"""Decoupling by gradient ascent (Varshney & Torra, arXiv 2502.04260, first part).

    maximise  l(x_f)   over encoder and decoder
    until     moved = |h(T(x_f)) - h0(T(x_f))|_2 / sqrt(n)  >=  lambda,  or T steps

l is the model's own loss, h = D . E . T the model's output of n values, h0 the original's; moved is
the mean over the forget images of the step's batch, and the step that finds it at lambda or beyond
changes nothing any more. Knowledge retention, the second part, is methods/finetune.py in a phase of
its own.

`lam` is lambda. lam = 0 takes it from a model that was retrained without the forget images, if
config.reference names one: the mean of moved with the retrained model in the student's place
(l2l_jax/survey.py), which is what lambda stands for; without a reference it means T steps. The
paper's values of T, lambda, step size and clipping were not available; clip the gradient with
optimizer.clip (the configs say 1.0), for l has no upper bound. Its (epsilon, delta) guarantee is
not reproduced: ascent alone bounds no distance to the retrained model.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.distance import displacement
from l2l_jax.types import Array, ImageToImage, Metrics, Outputs, Params, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("forget",)
TEACHER = True
MAKES_ORIGINAL = False
UNTIL = ("moved", "lam")  # the phase ends when this metric reaches this argument, if that is not 0


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Array,
    *,
    lam: float = 0.0,
) -> tuple[Array, Array, Metrics]:
    """(0, minus the loss on forget, {"moved", "lambda"})."""
    drop, key = batch.forget, rngs.fold(rng, "forget")
    inputs = model.corrupt(teacher, drop.images, drop.mask, key, visible=drop.visible)

    def outputs(params: Params) -> Outputs:
        return jax.lax.stop_gradient(model.decode(params, model.encode(params, inputs), inputs))

    moved = displacement(outputs(student), outputs(teacher))
    risen = jnp.mean(model.loss(student, inputs))
    return jnp.zeros(()), -risen, {"moved": moved, "lambda": jnp.float32(lam)}
