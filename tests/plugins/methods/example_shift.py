"""Example method: forget latents move away from the original's by a fixed length.

L_R = | E(T(x_r)) - E0(T(x_r)) |^2
L_F = | E(T(x_f)) - E0(T(x_f)) - length |^2
"""

import jax
import jax.numpy as jnp

from l2l_jax.lib import rng as rngs
from l2l_jax.lib.objectives import latent_distance
from l2l_jax.types import Array, Batch, ImageToImage, Latents, Metrics, Params, UnlearnBatch

TRAINABLE = ("encoder",)
SIDES = ("retain", "forget")
TEACHER = True
VARIANTS = (dict(length=2.0),)


def retain_target(model: ImageToImage, **args: object) -> str:
    """The retain latents stay where the original puts them."""
    del model, args
    return "original"


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Array,
    *,
    length: float = 1.0,
) -> tuple[Array, Array, Metrics]:
    """(L_R, L_F, {"shift"}): scalars; "shift" is the length that is asked for."""

    def both(side: Batch | None, name: str) -> tuple[Latents, Latents]:
        """Latents of student and teacher for the same inputs."""
        assert side is not None
        key = rngs.fold(rng, name)
        inputs = model.corrupt(teacher, side.images, side.mask, key, visible=side.visible)
        return model.encode(student, inputs), jax.lax.stop_gradient(model.encode(teacher, inputs))

    retain = latent_distance(*both(batch.retain, "retain"))
    latents, start = both(batch.forget, "forget")
    forget = latent_distance(latents, jax.tree.map(lambda x: x + length, start))
    return retain, forget, {"shift": jnp.float32(length)}
