"""Noise schedules of diffusion models: how much of an image is left after each step.

beta_t is the share of the variance that step t replaces by noise, gamma_t = prod (1 - beta_s) what
is left of the image's: y_t = sqrt(gamma_t) y_0 + sqrt(1 - gamma_t) noise. Computed in float64 and
stored as float32, as released.
"""

import dataclasses
import functools

import numpy as np

from l2l_jax.lib.errors import ConfigError, unknown

NAMES = ("linear", "quad", "warmup10", "warmup50", "const", "jsd", "cosine")
COSINE_OFFSET = 8e-3


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A named schedule. Arrays are [steps]; index 0 is the step next to the image."""

    name: str = "linear"
    steps: int = 2000
    start: float = 1e-6  # first beta; jsd and cosine take neither, const only the last
    end: float = 1e-2  # last beta

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise unknown("noise schedule", self.name, NAMES)
        if self.steps < 2 or not 0 < self.start <= self.end < 1:
            raise ConfigError(
                "A noise schedule has at least 2 steps and betas with 0 < start <= end < 1, not "
                f"steps={self.steps}, start={self.start}, end={self.end}."
            )

    @functools.cached_property
    def betas(self) -> np.ndarray:
        """float64."""
        start, end, steps = self.start, self.end, self.steps
        if self.name == "linear":
            return np.linspace(start, end, steps)
        if self.name == "quad":
            return np.linspace(start**0.5, end**0.5, steps) ** 2
        if self.name == "jsd":
            return 1.0 / np.linspace(steps, 1, steps)
        if self.name == "cosine":
            angles = (np.arange(steps + 1) / steps + COSINE_OFFSET) / (1 + COSINE_OFFSET)
            left = np.cos(angles * np.pi / 2) ** 2
            left = left / left[0]  # in this order, or the last digits differ from the released ones
            return np.minimum(1 - left[1:] / left[:-1], 0.999)
        betas = np.full(steps, end)
        warm = int(steps * {"warmup10": 0.1, "warmup50": 0.5, "const": 0.0}[self.name])
        betas[:warm] = np.linspace(start, end, warm)
        return betas

    @functools.cached_property
    def buffers(self) -> dict[str, np.ndarray]:
        """float32 by their official names: gammas, and what the ancestral sampler needs."""
        betas, gammas = self.betas, np.cumprod(1.0 - self.betas)
        before = np.append(1.0, gammas[:-1])
        inverse = 1.0 / np.maximum(gammas, 1e-60)  # jsd ends at gamma = 0
        variance = betas * (1.0 - before) / (1.0 - gammas)
        found = {
            "gammas": gammas,
            "sqrt_recip_gammas": np.sqrt(inverse),
            "sqrt_recipm1_gammas": np.sqrt(inverse - 1),
            "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
            "posterior_mean_coef1": betas * np.sqrt(before) / (1.0 - gammas),
            "posterior_mean_coef2": (1.0 - before) * np.sqrt(1.0 - betas) / (1.0 - gammas),
        }
        return {name: value.astype(np.float32) for name, value in found.items()}

    @property
    def gammas(self) -> np.ndarray:
        return self.buffers["gammas"]


BUFFERS = tuple(Schedule().buffers)


def recognise(buffers: dict[str, np.ndarray]) -> Schedule | None:
    """The schedule whose buffers these are (by their official names), or None."""
    gammas, first, last = (
        np.asarray(buffers[name], np.float64)
        for name in ("gammas", "sqrt_recipm1_gammas", "posterior_mean_coef2")
    )
    start = first[0] ** 2 / (1 + first[0] ** 2)
    end = 1 - (last[-1] * (1 - gammas[-1]) / (1 - gammas[-2])) ** 2
    start, end = (float(f"{min(max(x, 1e-12), 0.999):.4g}") for x in (start, end))
    for name in NAMES:
        own = name in ("jsd", "cosine")
        bounds = (1e-6, 1e-2) if own else (min(start, end), end)
        found = Schedule(name, len(gammas), *bounds)
        if all(np.allclose(found.buffers[k], buffers[k], rtol=2e-4, atol=1e-7) for k in BUFFERS):
            return found
    return None
