"""Meta-unlearning: forget so that training on forget images brings little back.

    theta_0 = theta,   theta_k = theta_(k-1) - rate g_k        k = 1 .. attack_steps
    L_R = outputs * d(h(x_r), h'(x_r))  +  latents * d(E(x_r), E'(x_r))          as in distill
    L_F = mean_i max(times * l0(x_f,i) - l(x_f,i; theta_K), 0) / (times * l0(x_f,i))

theta_K are the parameters after a simulated attack: an attacker trains the student on forget images
x_a, which are other ones than x_f. g_k is the gradient of the model's own loss on x_a, each array
divided by its root mean square, because the first steps of Adam are about as long. So L_F is 0 when
images to forget have `times` the loss of the teacher, also after the attack. The gradient of L_F is
taken at theta_K and applied to theta (first order): how the attack depends on theta is left out. l
is the model's own loss of each image, l0 and h' are those of the teacher. Encoder and decoder are
trained.

The teacher is the original, and then times is to be above 1, or it is the unlearned model of an
earlier phase: the recipe `resist` sets that one, with times = 0.8. In trials on the bundled
autoencoder the original as the teacher of a perturbed model gave back, on retain images alone, much
of what the attack needs; the unlearned model did not.

Of each two rows of a forget batch the first is an x_a and the second an x_f.

Source: "Meta-Unlearning on Diffusion Models", arXiv 2410.12777, for the idea to put an objective
behind simulated relearning; the paper could not be read. The objective above, its bound, the attack
and the first order are ours. rate = 3e-4 is the learning rate of the quick form of the audit
relearn; attack_steps = 3 and times are choices. It is one attack of many: audits with other
learning rates, more images and more steps show what it does not cover.

Cost of a step: a forward and backward pass on retain images, a forward pass of the teacher on all
images, and (attack_steps + 1) / 2 forward and backward passes on the forget images. Memory: the
original's parameters, and one more copy of the student's.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.objectives import matching, training_loss
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

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain", "forget")
TEACHER = True
MAKES_ORIGINAL = False
VARIANTS = (dict(latents=0.0),)
BOUNDS = {
    "times": Bounds(0, open_low=True),  # up to 1 with the original as teacher: nothing is forgotten
    "attack_steps": Bounds(1, 100),
    "rate": Bounds(0, 1, open_low=True),
    "outputs": Bounds(0),
    "latents": Bounds(0),
}
EPS = 1e-12


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Rng,
    *,
    times: int | float = 1.5,
    attack_steps: int = 3,
    rate: int | float = 3e-4,
    outputs: int | float = 1.0,
    latents: int | float = 1.0,
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (L_R, L_F, {"output_gap", "latent_gap", "at_the_bound", "attacked"}).

    at_the_bound: the share of x_f that reach the bound after the attack; attacked: their mean loss
    then. ConfigError for arguments out of bounds, and for a forget batch of less than two images.
    """
    if not (times > 0 and attack_steps >= 1 and rate > 0 and (outputs or latents)):
        raise ConfigError(
            f"meta_unlearn: times={times} must be above 0, attack_steps={attack_steps} at least 1, "
            f"rate={rate} above 0, and one of outputs={outputs} and latents={latents} too."
        )
    retain, key = batch.side("retain"), rngs.fold(rng, "retain")
    shown = model.corrupt(teacher, retain.images, retain.mask, key, visible=retain.visible)
    kept, metrics = matching(model, student, teacher, shown, outputs=outputs, latents=latents)
    kept += model.own_loss(student, shown)

    known, measured = _halves(batch.side("forget"))
    attacked = _attacked(model, student, known, rngs.fold(rng, "attack"), attack_steps, rate)
    key = rngs.fold(rng, "forget")
    inputs = model.corrupt(teacher, measured.images, measured.mask, key, visible=measured.visible)
    bound = times * jax.lax.stop_gradient(model.loss(teacher, inputs)) + EPS
    loss = model.loss(attacked, inputs)
    forgotten = jnp.mean(jnp.maximum(bound - loss, 0) / bound)
    metrics["at_the_bound"] = jnp.mean((loss >= bound).astype(jnp.float32))
    return kept, forgotten, metrics | {"attacked": jnp.mean(loss)}


def _halves(batch: Batch) -> list[Batch]:
    """Every second row, and the others: rows that lie beside each other are on one device."""
    pairs = len(batch.images) // 2
    if not pairs:
        raise ConfigError(
            "meta_unlearn attacks with half of the forget images of a batch and measures on the "
            "others: set batch_size to at least 2."
        )

    def part(x: Array, at: int) -> Array:
        return x[: 2 * pairs].reshape(pairs, 2, *x.shape[1:])[:, at]

    return [Batch(part(batch.images, at), part(batch.mask, at), batch.visible) for at in (0, 1)]


def _attacked(
    model: ImageToImage, student: Params, known: Batch, rng: Rng, steps: int, rate: int | float
) -> Params:
    """The student after the attack; its derivative by the student is the identity."""

    def loss(params: Params, key: Rng) -> Scalar:
        return training_loss(model, params, known, key)[0]

    def step(x: Array, gradient: Array) -> Array:
        return x - rate * gradient / (jnp.sqrt(jnp.mean(gradient**2)) + EPS)

    moved = start = jax.lax.stop_gradient(student)
    for at in range(steps):  # no loop of XLA, in which convolutions are slow on CPUs
        moved = jax.tree.map(step, moved, jax.grad(loss)(moved, rngs.fold(rng, at)))
    change = jax.lax.stop_gradient(jax.tree.map(jnp.subtract, moved, start))
    return jax.tree.map(jnp.add, student, change)
