"""Max Loss: undo the training on the forget images (baseline of Li et al., ICLR 2024).

    L_R = l(x_r)                                        the training loss of the model on retain
    L_F = mean_i max(times * l0(x_f,i) - l(x_f,i), 0)   rises to times * l0 and no further

l is the model's own loss of each image, l0 that of the original model with the same mask and random
draws. The gradient of L_F is that of -l until the loss of an image is `times` its original value,
and zero from then on; L_F is 0 once all images have reached the bound. Encoder and decoder are
trained.

With retain="match" the retain objective is not the training loss but the distance of the outputs
and latents to those of the original (lib/objectives.py, `matching`). With times = 0 and the stop
"unseen" this is the recipe for single images: the form word `images` of the configs.

The published baseline maximises l without a bound (released code: CE(retain) - alpha CE(forget)),
so its result depends on when training stops more than on alpha. The bound `times` is our addition;
it makes the result well defined. times = 0: no bound, as released. The released runs name no alpha
of their own; the solver's 0.25 is that of L2L.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.lib.objectives import matching, training_loss
from l2l_jax.types import Bounds, ImageToImage, Metrics, Params, Rng, Scalar, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain", "forget")
TEACHER = True
MAKES_ORIGINAL = False
VARIANTS = (dict(times=0.0), dict(retain="match"))
RETAINS = ("loss", "match")
BOUNDS = {
    "times": Bounds(1, open_low=True, special=(0,)),  # up to 1 the loss would not rise
    "retain": Bounds(choices=RETAINS),
}


def retain_target(model: ImageToImage, *, retain: str = RETAINS[0], **args: object) -> str:
    """Returns "original" if outputs and latents are matched, else "data"."""
    del model, args
    return "original" if retain == "match" else "data"


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Rng,
    *,
    times: int | float = 5.0,
    retain: str = RETAINS[0],
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (L_R, L_F, metrics of the model on retain).

    With a bound, "at_the_bound" is the fraction of forget images that have reached it. retain: one
    of RETAINS. ConfigError unless times is 0 or more than 1.
    """
    if retain not in RETAINS:
        raise unknown_name("retain of max_loss", retain, RETAINS)
    if not (times == 0 or times > 1):
        raise ConfigError(
            f"max_loss: times={times} would leave the loss unchanged or lower it; it must be more "
            "than 1, or 0 for no bound."
        )
    forget = batch.side("forget")
    retain_key, forget_key = rngs.fold(rng, "retain"), rngs.fold(rng, "forget")
    kept = batch.side("retain")
    if retain == "match":
        shown = model.corrupt(teacher, kept.images, kept.mask, retain_key, visible=kept.visible)
        retain_loss, metrics = matching(model, student, teacher, shown)
    else:
        retain_loss, metrics = training_loss(model, student, kept, retain_key)
    inputs = model.corrupt(teacher, forget.images, forget.mask, forget_key, visible=forget.visible)
    loss = model.loss(student, inputs)
    if not times:
        return retain_loss, -jnp.mean(loss), metrics
    bound = times * jax.lax.stop_gradient(model.loss(teacher, inputs))
    at_the_bound = jnp.mean((loss >= bound).astype(jnp.float32))
    forget_loss = jnp.mean(jnp.maximum(bound - loss, 0))
    return retain_loss, forget_loss, metrics | {"at_the_bound": at_the_bound}
