"""How fast the forgotten comes back while somebody trains a model on a few of the images.

The attack of the audit `relearn`, on a loaded model, one step after the other, to be watched.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import UInt8

from l2l_jax.explore.html import psnr
from l2l_jax.lib import pixels, trees
from l2l_jax.lib import rng as rngs
from l2l_jax.loaded import Hidden, Model
from l2l_jax.types import Array, Params


def relearn(
    model: Model,
    images: UInt8[np.ndarray, "N S S 3"],
    held_out: UInt8[np.ndarray, "M S S 3"],
    hidden: Hidden = "center",
    *,
    steps: Sequence[int] = (0, 5, 10, 20, 40),
    lr: float = 3e-4,
    seed: int = 0,
) -> Iterator[tuple[int, float]]:
    """Yields (steps done, mean PSNR of the held-out images in dB) while the model is trained.

    All parameters are trained with the model's own loss and AdamW, on all images in each step, with
    new masks of half of the cells. hidden: what is completed when the PSNR is measured. The model
    itself does not change.
    """
    functions, optimizer = model.functions, optax.adamw(lr)
    trained: Params = jax.tree.map(jnp.asarray, trees.stack(model.params, functions.template))
    state, given = optimizer.init(trained), pixels.to_unit_range(jnp.asarray(images))
    measured = model.hidden_pixels(hidden, len(held_out), seed)

    @jax.jit
    def step(params: Params, state: optax.OptState, rng: Array) -> tuple[Params, optax.OptState]:
        mask = jax.random.bernoulli(rngs.fold(rng, "mask"), 0.5, (len(given), *functions.grid))

        def loss(params: Params) -> Array:
            inputs = functions.corrupt(params, given, mask, rngs.fold(rng, "model"))
            return jnp.mean(functions.loss(params, inputs))

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        moved: Any = optax.apply_updates(params, updates)
        return moved, state

    done, rng = 0, rngs.key(seed, "relearn")
    for wanted in sorted(set(steps)):
        for at in range(done, wanted):
            trained, state = step(trained, state, rngs.fold(rng, at))
        done = max(done, wanted)
        completed = model.with_params(trained).complete(held_out, measured, seed)
        each = [psnr(*row) for row in zip(held_out, completed, measured, strict=True)]
        yield done, float(np.mean(each))
