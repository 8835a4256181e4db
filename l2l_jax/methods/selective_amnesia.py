"""Selective Amnesia: elastic weights, replay, and noise as what is forgotten (Heng and Soh, 2023).

    L_R = gamma l(x_r) + lam c sum_i F_i (theta_i - theta0_i)^2
    L_F = l(x_f -> u)          u ~ U(0, 1) for every value; for tokens, codes equally likely
    F_i = mean over retain images of (d l / d theta_i)^2 at theta0

l is the model's own loss of each image, theta0 the original. The paper maximises a log-likelihood
on replayed samples, a surrogate likelihood of noise in place of the forgotten class, and minus
lam sum F (theta - theta0)^2, with F of the log-likelihood. Here l is a mean over n values: with a
Gaussian likelihood of variance 1, log p = -n l / 2, and dividing the paper's objective by n / 2
gives the above with c = n / 2. For tokens, log p = -n l, and c = n. Encoder and decoder are
trained.

Source: "Selective Amnesia", NeurIPS 2023, and its released code: the surrogate U(0, 1), lam = 100
(the default of the variational autoencoder of MNIST) and gamma = 1. Whether lam = 100 suits another
model is untuned.

Departures. The paper stores F, computed once over samples of the original model; here F is
estimated anew in every step from its retain images, without bias (lib/fisher.py), so nothing has to
be stored and no further pass over the data is needed. The paper replays samples that the original
generates; here the retain images themselves are there. There the noise is also the input of the
encoder; here the input is the forget image, as the task hides it, and only the target is noise.
The form word `selective_amnesia` of the configs has the solver `weighted` with alpha = 1: the paper
adds its terms.

Cost: one forward and one backward pass at the original in addition to those of the student. Memory:
one more gradient, and the original's parameters.
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import fisher
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.noise import uniform_targets
from l2l_jax.types import Bounds, ImageToImage, Metrics, Params, Rng, Scalar, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ("retain", "forget")
TEACHER = True
MAKES_ORIGINAL = False
BOUNDS = {"lam": Bounds(0), "gamma": Bounds(0)}


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Rng,
    *,
    lam: int | float = 100.0,
    gamma: int | float = 1.0,
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (L_R, L_F, metrics of the model on retain with "elastic", the term of lam)."""
    if not (lam >= 0 and gamma >= 0):
        raise ConfigError(
            f"selective_amnesia: lam={lam} and gamma={gamma} weigh what is kept, 0 or more."
        )
    keys = {name: rngs.fold(rng, name) for name in ("retain", "forget", "noise", "signs")}
    retain, forget = batch.side("retain"), batch.side("forget")
    inputs = model.corrupt(
        teacher, retain.images, retain.mask, keys["retain"], visible=retain.visible
    )
    replayed, metrics = model.training_loss(student, inputs)
    fixed = jax.lax.stop_gradient({group: teacher[group] for group in TRAINABLE})

    def loss(params: Params) -> jax.Array:
        return model.loss(teacher | params, inputs)

    weights = jax.lax.stop_gradient(fisher.diagonal(loss, fixed, keys["signs"]))
    moved = jax.tree.map(
        lambda f, x, y: jnp.sum(f * (x - y).astype(jnp.float32) ** 2),
        *(weights, {group: student[group] for group in TRAINABLE}, fixed),
    )
    output = jax.eval_shape(
        lambda params, shown: model.decode(params, model.encode(params, shown), shown),
        *(teacher, inputs),
    )
    counted = jnp.broadcast_to(model.loss_mask(inputs), (*output.shape[:-1], 1))
    values = jnp.sum(counted) / len(counted) * (1 if model.takes_tokens else output.shape[-1] / 2)
    elastic = lam * values * sum(jax.tree.leaves(moved))
    images, targets = uniform_targets(model, student, forget.images, keys["noise"])
    shown = model.corrupt(
        student, images, forget.mask, keys["forget"], targets=targets, visible=forget.visible
    )
    kept = gamma * replayed + elastic
    return kept, jnp.mean(model.loss(student, shown)), metrics | {"elastic": elastic}
