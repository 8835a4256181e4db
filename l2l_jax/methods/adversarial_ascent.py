"""Ascent on forget images; adversarial examples of them keep the rest (Su and Zheng, 2024).

    L_R = 0
    L_F = - l(x_f) + weight |h(x_f + d) - h0(x_f + d)|^2
    d   = argmax |h0(x_f + d) - h0(x_f)|^2   over visible pixels, |d| <= radius everywhere

l is the model's own loss, h its output and h0 that of the original, all with one mask and one draw
of T. d is found by `attack_steps` steps of length 2 radius / attack_steps along the sign of the
gradient, from a random start. x_f + d is an image near the forget image that the original completes
in another way: keeping the output there is meant to keep what surrounds the forget images. No
retain image is used. Encoder and decoder are trained.

Source: "Accurate Forgetting for All-in-One Image Restoration Model", arXiv 2409.00685: ascent on
the data to forget, and adversarial examples as the regulariser. Its formulas could not be read:
which distance it attacks and how it weighs the terms is our reading. weight = 1, radius = 8 / 255
and attack_steps = 3 are our choices, and untuned. The ascent has no bound: like `ascent`, it needs
a small learning rate, clipping, and few steps. The form word `adversarial_ascent` of the configs
sets the first two, with alpha = 1, and adds no other phase.

It cannot be stated for a model of tokens: tokens have no gradient by which to attack them.

Cost: attack_steps + 1 forward and as many backward passes of the original, and two forward and
backward passes of the student. Memory: the original's parameters.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import pixels
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.objectives import output_distance
from l2l_jax.types import (
    Array,
    Bounds,
    Images,
    ImageToImage,
    Metrics,
    Outputs,
    Params,
    Rng,
    Scalar,
    UnlearnBatch,
)

TRAINABLE = ("encoder", "decoder")
SIDES = ("forget",)
TEACHER = True
MAKES_ORIGINAL = False
BOUNDS = {
    "weight": Bounds(0),
    "radius": Bounds(0, 1, open_low=True),
    "attack_steps": Bounds(1, 1000),
}
UNROLLED = 8  # steps of the attack without a loop: XLA's convolutions on CPUs are slow inside one


def refuses(model: ImageToImage) -> str:
    """Why the method cannot be stated for this model, "" if it can."""
    return "tokens have no gradient by which to attack them" if model.takes_tokens else ""


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Rng,
    *,
    weight: int | float = 1.0,
    radius: int | float = 8 / 255,
    attack_steps: int = 3,
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (0, L_F, {"kept": the distance at x_f + d, "attacked": how far d moved h0}).

    ConfigError for a model of tokens, a radius of 0, or less than one step.
    """
    if why := refuses(model):
        raise ConfigError(f"adversarial_ascent: {why}. Choose another method, such as ascent.")
    if not (radius > 0 and attack_steps >= 1 and weight >= 0):
        raise ConfigError(
            f"adversarial_ascent: weight={weight}, radius={radius} and attack_steps={attack_steps} "
            "must be 0 or more, above 0, and at least 1."
        )
    forget, key = batch.side("forget"), rngs.fold(rng, "forget")

    def shown(images: Images) -> object:
        return model.corrupt(teacher, images, forget.mask, key, visible=forget.visible)

    def outputs(params: Params, images: Images) -> Outputs:
        inputs = shown(images)
        return model.decode(params, model.encode(params, inputs), inputs)

    inputs = shown(forget.images)
    counts, original = model.loss_mask(inputs), outputs(teacher, forget.images)
    start = jax.random.uniform(
        rngs.fold(rng, "attack"), forget.images.shape, minval=-radius, maxval=radius
    )
    seen = ~pixels.hidden_pixels(forget.mask, model.image_size)

    def attacked(images: Images) -> Scalar:
        return jnp.mean(output_distance(outputs(teacher, images), original, counts))

    def near(difference: Images) -> Images:
        bounded = jnp.where(seen, jnp.clip(difference, -radius, radius), 0.0)
        return jnp.clip(forget.images + bounded, 0.0, 1.0)

    def climb(_: Array | int, images: Images) -> Images:
        step = 2 * radius / attack_steps * jnp.sign(jax.grad(attacked)(images))
        return near(images + step - forget.images)

    begun = jax.lax.stop_gradient(near(start))
    unroll = min(attack_steps, UNROLLED)
    found = jax.lax.fori_loop(0, attack_steps, climb, begun, unroll=unroll)
    found = jax.lax.stop_gradient(found)
    target = jax.lax.stop_gradient(outputs(teacher, found))
    kept = jnp.mean(output_distance(outputs(student, found), target, counts))
    metrics = {"kept": kept, "attacked": jax.lax.stop_gradient(attacked(found))}
    return jnp.zeros(()), weight * kept - jnp.mean(model.loss(student, inputs)), metrics
