"""Max Loss: undo training on the forget images (baseline of Li et al., ICLR 2024).

    L_R = l(x_r)                                        the model's own loss, mean over retain
    L_F = mean_i max(times * l0(x_f,i) - l(x_f,i), 0)   rises no further than times * l0

l is the model's own loss for each image, l0 that of the original model under the same mask and
draws. The gradient of L_F is that of -l until an image's loss is `times` what it was, and zero
from there on; L_F is 0 once all have reached it. Encoder and decoder are trained.

The published baseline maximises l without end (released code: CE(retain) - alpha CE(forget)), so
that its result depends on when it is stopped more than on alpha; `times` is the bound that makes it
a method, and is ours. times = 0: no bound, as released. The released runs name no alpha of their
own; the solver's 0.25 is that of L2L.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.objectives import native_loss
from l2l_jax.types import Array, ImageToImage, Metrics, Params, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain", "forget")
TEACHER = True
MAKES_ORIGINAL = False
VARIANTS = (dict(times=0.0),)


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Array,
    *,
    times: float = 5.0,
) -> tuple[Array, Array, Metrics]:
    """(L_R, L_F, metrics): metrics has the share of forget images that have reached the bound."""
    if not (times == 0 or times > 1):
        raise ConfigError(
            f"max_loss: times={times} would keep the loss where it is or lower it; it is more than "
            "1, or 0 for no bound."
        )
    drop = batch.forget
    retain, metrics = native_loss(model, student, batch.retain, rngs.fold(rng, "retain"))
    key = rngs.fold(rng, "forget")
    inputs = model.corrupt(teacher, drop.images, drop.mask, key, visible=drop.visible)
    risen = model.loss(student, inputs)
    if not times:
        return retain, -jnp.mean(risen), metrics
    bound = times * jax.lax.stop_gradient(model.loss(teacher, inputs))
    there = jnp.mean((risen >= bound).astype(jnp.float32))
    forget = jnp.mean(jnp.maximum(bound - risen, 0))
    return retain, forget, metrics | {"at_the_bound": there}
