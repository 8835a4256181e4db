"""From noise to an image: the samplers of a model that predicts noise, as one compiled loop each.

predict(noisy, gamma) -> the noise in it; noisy: [B, H, W, 3] around [-1, 1], gamma: scalar. Known
pixels (where `hidden`, [B, H, W, 1] bool, is False) are put back after every step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.models.layers.noise_schedule import Schedule
from l2l_jax.types import Array

Predict = Callable[[Array, Array], Array]
Noise = Callable[[Array], Array]


def ddpm(
    predict: Predict,
    start: Array,
    known: Array,
    hidden: Array,
    schedule: Schedule,
    noise: Noise,
) -> Array:
    """Every step of the schedule, drawing from the posterior (Ho et al. 2020; Palette).

    start: what the first step sees. noise(t): the draw of step t, [B, H, W, 3]; none at t = 0.
    """
    buffers = {name: jnp.asarray(value) for name, value in schedule.buffers.items()}

    def step(y: Array, t: Array) -> tuple[Array, None]:
        mean, log_variance = posterior(predict, y, {k: v[t] for k, v in buffers.items()})
        drawn = jnp.where(t > 0, noise(t) * jnp.exp(0.5 * log_variance), 0.0)
        return jnp.where(hidden, mean + drawn, known), None

    return jax.lax.scan(step, start, jnp.arange(schedule.steps)[::-1])[0]


def posterior(predict: Predict, y: Array, at: dict[str, Array]) -> tuple[Array, Array]:
    """(mean, log variance) of the step before, the image clipped to [-1, 1]; at: its buffers."""
    image = at["sqrt_recip_gammas"] * y - at["sqrt_recipm1_gammas"] * predict(y, at["gammas"])
    image = jnp.clip(image, -1.0, 1.0)
    mean = at["posterior_mean_coef1"] * image + at["posterior_mean_coef2"] * y
    return mean, at["posterior_log_variance_clipped"]


def ddim(
    predict: Predict, start: Array, known: Array, hidden: Array, schedule: Schedule, steps: int
) -> Array:
    """So many steps, evenly spread over the schedule, no noise added (DDIM, Song et al. 2021).

    y' = sqrt(gamma') y0 + sqrt(1 - gamma') e, y0 the image that the prediction implies, clipped to
    [-1, 1], and e the noise that explains y with it; the last step ends at gamma' = 1, which is y0.
    """
    gammas = schedule.gammas[places(schedule.steps, steps)]

    def step(y: Array, pair: Array) -> tuple[Array, None]:
        gamma, goal = pair
        signal, noise = (jnp.maximum(jnp.sqrt(x), 1e-6) for x in (gamma, 1 - gamma))
        image = jnp.clip((y - noise * predict(y, gamma)) / signal, -1.0, 1.0)
        left = (y - signal * image) / noise
        return jnp.where(hidden, jnp.sqrt(goal) * image + jnp.sqrt(1 - goal) * left, known), None

    pairs = np.stack([gammas, np.append(gammas[1:], 1.0)], axis=1).astype(np.float32)
    return jax.lax.scan(step, start, jnp.asarray(pairs))[0]


def places(count: int, steps: int) -> np.ndarray:
    """[steps] int: the steps of a schedule of `count` that are taken, the last one first.

    Of each stretch of the schedule its noisy end. So the step at 0, where almost no noise is left,
    is among them only if nearly all are.
    """
    return np.round(np.linspace(count, 0, steps + 1)[:-1]).astype(int) - 1
