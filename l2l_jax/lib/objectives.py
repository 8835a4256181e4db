"""Terms of the methods' objectives: distances, and the model's own training loss."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from l2l_jax.types import (
    Batch,
    ImageToImage,
    Inputs,
    Latents,
    Metrics,
    Outputs,
    Params,
    PerImage,
    Rng,
    Scalar,
)

Rows = TypeVar("Rows")  # a pytree of arrays [B, ...]


def latent_distance(a: Latents, b: Latents, relative: bool = False) -> Scalar:
    """Mean squared difference in float32, summed over the arrays of a pytree (feature maps).

    b is the target. relative: divide the term of each array by the mean square of b's array.
    """

    def mean(x: Array, y: Array) -> Scalar:
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)
        unit = jax.lax.stop_gradient(jnp.mean(y**2)) + 1e-12 if relative else 1.0
        return jnp.mean((x - y) ** 2) / unit

    return jnp.asarray(sum(jax.tree.leaves(jax.tree.map(mean, a, b))))


def together(function: Callable[[Inputs], Rows], *inputs: Inputs) -> list[Rows]:
    """[function(x) for x in inputs], by one call on the rows of all of them.

    Each row of what the function returns depends on that row alone: it is E, or the loss of each
    image, of one model. Larger matrix products are faster, and each gradient is summed over the
    devices once. The rows alternate, so that every device keeps its own. Inputs of different shapes
    take a call each.
    """
    count = len(inputs)
    if any(jax.tree.map(jnp.shape, x) != jax.tree.map(jnp.shape, inputs[0]) for x in inputs):
        return [function(x) for x in inputs]

    def join(*parts: Array) -> Array:
        return jnp.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:])

    rows = function(jax.tree.map(join, *inputs))
    each = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]), rows)
    return [jax.tree.map(lambda x, at=at: x[:, at], each) for at in range(count)]


def across_images(latents: Latents) -> Scalar:
    """Variance of each latent value across the images of a batch; mean over values, no gradient.

    It is half the mean squared difference of neighbouring rows, (0, 1), (2, 3), ...: these lie on
    one device, so that no latents move between devices. 0 for a single image. Several arrays
    (feature maps) count by their number of values.
    """
    leaves = [jax.lax.stop_gradient(x).astype(jnp.float32) for x in jax.tree.leaves(latents)]
    pairs = len(leaves[0]) // 2
    if not pairs:
        return jnp.zeros(())
    gaps = [x[: 2 * pairs : 2] - x[1 : 2 * pairs : 2] for x in leaves]
    total = sum(jnp.sum(gap**2) for gap in gaps)
    return jnp.asarray(total / (2 * sum(gap.size for gap in gaps)))


def output_distance(a: Outputs, b: Outputs, loss_mask: Bool[Array, "..."]) -> PerImage:
    """[B] mean squared difference of the outputs of each example where loss_mask is True.

    a, b: [B, ...]; loss_mask broadcasts to them. 0 for an example without a True value.
    """
    loss_mask = jnp.broadcast_to(loss_mask, a.shape)
    squares = jnp.where(loss_mask, (a.astype(jnp.float32) - b.astype(jnp.float32)) ** 2, 0.0)
    axes = tuple(range(1, a.ndim))
    return jnp.sum(squares, axes) / jnp.maximum(jnp.sum(loss_mask, axes), 1)


def training_loss(
    model: ImageToImage, params: Params, batch: Batch, rng: Rng
) -> tuple[Scalar, Metrics]:
    """Corrupts the batch and returns (training loss of the model, its metrics)."""
    inputs = model.corrupt(params, batch.images, batch.mask, rng, visible=batch.visible)
    return model.training_loss(params, inputs)


def divergence(a: Outputs, b: Outputs, loss_mask: Bool[Array, "..."]) -> PerImage:
    """[B] Kullback-Leibler divergence of the distributions of logits b from those of logits a.

    KL(softmax(b) || softmax(a)) in nats, where b is the target: the mean over the tokens at which
    loss_mask is True. a, b: [B, L, codes]; loss_mask: [B, L, 1]. 0 for an example without such a
    token.
    """
    log_a, log_b = (jax.nn.log_softmax(x.astype(jnp.float32)) for x in (a, b))
    each = jnp.sum(jnp.exp(log_b) * (log_b - log_a), axis=-1, keepdims=True)
    axes = tuple(range(1, each.ndim))
    return jnp.sum(jnp.where(loss_mask, each, 0.0), axes) / jnp.maximum(jnp.sum(loss_mask, axes), 1)


def matching(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    inputs: Inputs,
    *,
    outputs: int | float = 1.0,
    latents: int | float = 1.0,
    relative: bool = True,
) -> tuple[Scalar, Metrics]:
    """(outputs * their distance to the teacher's + latents * theirs, {"output_gap", "latent_gap"}).

    Outputs are compared where the loss of the model counts: values that it does not train, such as
    those of visible patches of an MAE, mean nothing. The distance of logits of tokens is their
    `divergence`, that of other outputs the mean square. relative: a mean square is divided by the
    variance of the teacher's values, and that of latents as in latent_distance, so that the weights
    mean the same for every model. A weight of 0 leaves its term out; it costs nothing then.
    """
    fixed, total, metrics = jax.lax.stop_gradient, jnp.zeros(()), {}
    own, target = model.encode(student, inputs), fixed(model.encode(teacher, inputs))
    if latents:
        metrics["latent_gap"] = latent_distance(own, target, relative)
        total += latents * metrics["latent_gap"]
    if outputs:
        made = model.decode(student, own, inputs)
        wanted, counts = fixed(model.decode(teacher, target, inputs)), model.loss_mask(inputs)
        if model.takes_tokens:
            gap = jnp.mean(divergence(made, wanted, counts))
        else:
            unit = _variance(wanted, counts) if relative else 1.0
            gap = jnp.mean(output_distance(made, wanted, counts)) / unit
        metrics["output_gap"] = gap
        total += outputs * gap
    return total, metrics


def _variance(outputs: Outputs, loss_mask: Bool[Array, "..."]) -> Scalar:
    """The variance of all values where loss_mask is True; never 0."""
    weight = jnp.broadcast_to(loss_mask, outputs.shape).astype(jnp.float32)
    count = jnp.maximum(jnp.sum(weight), 1)
    mean = jnp.sum(weight * outputs) / count
    return jnp.sum(weight * (outputs - mean) ** 2) / count + 1e-12
