"""Decoupling by gradient ascent (Varshney & Torra, arXiv 2502.04260, first part).

    maximise  l(x_f)   over encoder and decoder
    until     moved = |h(T(x_f)) - h0(T(x_f))|_2 / sqrt(n)  >=  lambda,  or T steps

l is the model's own loss, h = D . E . T the model's output, of which n values are those that l is
about (all pixels, hidden patches, the hole; the probabilities of masked tokens), h0 the original's.
The others mean nothing, and two models that were trained apart differ there in any way. moved is
the mean over the forget images of the step's batch, and the step that finds it at lambda or beyond
changes nothing any more. Knowledge retention, the second part, is methods/finetune.py in a phase of
its own.

`lam` is lambda. lam = 0 takes it from a model that was retrained without the forget images, if
config.reference names one: the mean of moved with the retrained model in the student's place
(engine/measure.py), which is what lambda stands for; without a reference it means T steps. The
paper's values of T, lambda, step size and clipping were not available. l has no upper bound:
optimizer.clip bounds its gradient, and the configs' form word `ascent` says 1.0 and steps a tenth
as long as those of L2L, for AdamW makes every gradient's step about as long as the learning rate,
and one such step could leap over lambda. The paper's (epsilon, delta) guarantee is not reproduced:
ascent alone bounds no distance to the retrained model.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.objectives import output_distance
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
    if not lam >= 0:
        raise ConfigError(f"ascent: lam={lam} is how far outputs may move; 0: no bound of its own.")
    drop, key = batch.forget, rngs.fold(rng, "forget")
    inputs = model.corrupt(teacher, drop.images, drop.mask, key, visible=drop.visible)

    def outputs(params: Params) -> Outputs:
        made = jax.lax.stop_gradient(model.decode(params, model.encode(params, inputs), inputs))
        return jax.nn.softmax(made) if model.takes_tokens else made

    apart = output_distance(outputs(student), outputs(teacher), model.loss_mask(inputs))
    moved = jnp.mean(jnp.sqrt(apart))
    risen = jnp.mean(model.loss(student, inputs))
    return jnp.zeros(()), -risen, {"moved": moved, "lambda": jnp.float32(lam)}
