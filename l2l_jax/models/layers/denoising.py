"""The samplers of diffusion models that predict noise, as one compiled loop each.

predict(noisy, gamma) returns the noise in `noisy`, [B, H, W, 3] around [-1, 1]; gamma is a scalar.
Every step restores the `known` pixels where `hidden` is False.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from l2l_jax.lib.errors import ConfigError
from l2l_jax.models.layers.noise_schedule import Schedule
from l2l_jax.models.layers.unet import Hole
from l2l_jax.types import Array, Images, Scalar

Predict = Callable[[Images, Scalar], Images]
Noise = Callable[[Int[Array, ""]], Images]


def ddpm(
    predict: Predict,
    start: Images,
    known: Images,
    hidden: Hole,
    schedule: Schedule,
    noise: Noise,
) -> Images:
    """DDPM: every step of the schedule samples from the posterior (Ho et al. 2020; Palette).

    start: the input of the first step. noise(t): standard normal noise for step t; unused at t = 0.
    """
    buffers = {name: jnp.asarray(value) for name, value in schedule.buffers.items()}

    def step(y: Images, t: Int[Array, ""]) -> tuple[Images, None]:
        mean, log_variance = posterior(predict, y, {k: v[t] for k, v in buffers.items()})
        drawn = jnp.where(t > 0, noise(t) * jnp.exp(0.5 * log_variance), 0.0)
        return jnp.where(hidden, mean + drawn, known), None

    return jax.lax.scan(step, start, jnp.arange(schedule.steps)[::-1])[0]


def posterior(predict: Predict, y: Images, at: dict[str, Any]) -> tuple[Images, Any]:
    """(mean, log variance) of the previous step, with the predicted image clipped to [-1, 1].

    at: the values of the schedule's buffers at this step, scalars.
    """
    image = at["sqrt_recip_gammas"] * y - at["sqrt_recipm1_gammas"] * predict(y, at["gammas"])
    image = jnp.clip(image, -1.0, 1.0)
    mean = at["posterior_mean_coef1"] * image + at["posterior_mean_coef2"] * y
    return mean, at["posterior_log_variance_clipped"]


def ddim(
    predict: Predict, start: Images, known: Images, hidden: Hole, schedule: Schedule, steps: int
) -> Images:
    """DDIM: `steps` steps, evenly spread over the schedule, without noise (Song et al. 2021).

    y' = sqrt(gamma') y0 + sqrt(1 - gamma') e. y0 is the image that the prediction implies, clipped
    to [-1, 1]; e is the noise that gives y from y0. The last step ends at gamma' = 1, which is y0.
    """
    gammas = schedule.gammas[spread_steps(schedule.steps, steps)]

    def step(y: Images, pair: Float[Array, "2"]) -> tuple[Images, None]:
        gamma, next_gamma = pair
        signal, noise = (jnp.maximum(jnp.sqrt(x), 1e-6) for x in (gamma, 1 - gamma))
        image = jnp.clip((y - noise * predict(y, gamma)) / signal, -1.0, 1.0)
        epsilon = (y - signal * image) / noise
        moved = jnp.sqrt(next_gamma) * image + jnp.sqrt(1 - next_gamma) * epsilon
        return jnp.where(hidden, moved, known), None

    pairs = np.stack([gammas, np.append(gammas[1:], 1.0)], axis=1).astype(np.float32)
    return jax.lax.scan(step, start, jnp.asarray(pairs))[0]


def spread_steps(count: int, steps: int) -> Int[np.ndarray, " {steps}"]:
    """[steps] int: which steps of a schedule with `count` steps DDIM takes, the noisiest first.

    It takes the noisy end of each interval. So step 0, where almost no noise is left, is included
    only if nearly all steps are.
    """
    return np.round(np.linspace(count, 0, steps + 1)[:-1]).astype(int) - 1


def check_sampler(sampler: str, sample_steps: int, steps: int) -> None:
    """ConfigError unless the sampler can take `sample_steps` of `steps`."""
    if not (isinstance(sample_steps, int) and 0 <= sample_steps <= steps):
        raise ConfigError(
            f"model.args.sample_steps={sample_steps}: the schedule of sampling has "
            f"{steps} steps; take 1 to {steps}, or 0 for all."
        )
    if sampler == "ddpm" and sample_steps not in (0, steps):
        raise ConfigError(
            f"The sampler ddpm takes all {steps} steps of its schedule: set "
            "model.args.sample_steps=0, or model.args.sampler=ddim for fewer."
        )
