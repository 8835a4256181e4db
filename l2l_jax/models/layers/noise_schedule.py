"""Noise schedules of diffusion models: how much of an image remains after each step.

beta_t is the fraction of the variance that step t replaces by noise; gamma_t = prod (1 - beta_s) is
the fraction of the image's variance that remains:
y_t = sqrt(gamma_t) y_0 + sqrt(1 - gamma_t) noise. Computed in float64 and stored as float32, as
released.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from l2l_jax.lib.errors import ConfigError, unknown_name

NAMES = ("linear", "quad", "warmup10", "warmup50", "const", "jsd", "cosine")
BOUNDLESS = ("jsd", "cosine")  # schedules without a first and a last beta
BOUNDS: dict[str, tuple[str, ...]] = {  # which bounds a schedule has, if not ("start", "end")
    "const": ("end",),
    **dict.fromkeys(BOUNDLESS, ()),
}
COSINE_OFFSET = 8e-3


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A named schedule. Arrays are [steps]; index 0 is the step next to the image."""

    name: str = "linear"
    steps: int = 2000
    start: int | float = 1e-6  # first beta; const uses only the last, jsd and cosine neither
    end: int | float = 1e-2  # last beta

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise unknown_name("noise schedule", self.name, NAMES)
        numbers = all(isinstance(x, int | float) for x in (self.start, self.end))
        whole = isinstance(self.steps, int) and self.steps >= 2
        inside = numbers and (self.name in BOUNDLESS or 0 < self.first <= self.end < 1)
        if not (whole and inside):
            raise ConfigError(
                "A noise schedule has at least 2 steps and betas with 0 < start <= end < 1, not "
                f"steps={self.steps!r}, start={self.start!r}, end={self.end!r}."
            )

    @property
    def description(self) -> str:
        """Name and bounds in words, without the number of steps."""
        bounds = "" if self.name in BOUNDLESS else f" {self.first:g} to {self.end:g}"
        return f"{self.name}{bounds}"

    @property
    def first(self) -> int | float:
        """The first beta of a schedule with bounds."""
        return self.end if self.name == "const" else self.start

    @functools.cached_property
    def betas(self) -> Float[np.ndarray, " steps"]:
        """float64, one for each step."""
        start, end, steps = self.start, self.end, self.steps
        if self.name == "linear":
            return np.linspace(start, end, steps)
        if self.name == "quad":
            return np.linspace(start**0.5, end**0.5, steps) ** 2
        if self.name == "jsd":
            return 1.0 / np.linspace(steps, 1, steps)
        if self.name == "cosine":
            angles = (np.arange(steps + 1) / steps + COSINE_OFFSET) / (1 + COSINE_OFFSET)
            gammas = np.cos(angles * np.pi / 2) ** 2
            gammas = gammas / gammas[0]  # other orders of operations differ in the last digits
            return np.minimum(1 - gammas[1:] / gammas[:-1], 0.999)
        betas = np.full(steps, end)
        warm = int(steps * {"warmup10": 0.1, "warmup50": 0.5, "const": 0.0}[self.name])
        betas[:warm] = np.linspace(start, end, warm)
        return betas

    @functools.cached_property
    def buffers(self) -> dict[str, np.ndarray]:
        """float32 by their official names: gammas, and the coefficients of DDPM sampling."""
        betas, gammas = self.betas, np.cumprod(1.0 - self.betas)
        before = np.append(1.0, gammas[:-1])
        inverse = 1.0 / np.maximum(gammas, 1e-60)  # jsd ends at gamma = 0
        variance = betas * (1.0 - before) / (1.0 - gammas)
        buffers = {
            "gammas": gammas,
            "sqrt_recip_gammas": np.sqrt(inverse),
            "sqrt_recipm1_gammas": np.sqrt(inverse - 1),
            "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
            "posterior_mean_coef1": betas * np.sqrt(before) / (1.0 - gammas),
            "posterior_mean_coef2": (1.0 - before) * np.sqrt(1.0 - betas) / (1.0 - gammas),
        }
        return {name: value.astype(np.float32) for name, value in buffers.items()}

    @property
    def gammas(self) -> Float[np.ndarray, " steps"]:
        return self.buffers["gammas"]


BUFFERS = tuple(Schedule().buffers)


def infer_schedule(buffers: Mapping[str, Any]) -> Schedule | None:
    """The schedule that has these buffers (by official name), or None.

    Its betas are the shortest decimal numbers that reproduce the buffers.
    """
    values = {name: np.asarray(buffers[name], np.float64) for name in BUFFERS}
    shape = values["gammas"].shape
    if len(shape) != 1 or shape[0] < 2 or any(value.shape != shape for value in values.values()):
        return None
    gammas, last = values["gammas"], values["posterior_mean_coef2"][-1]
    start = values["sqrt_recipm1_gammas"][0] ** 2
    start = start / (1 + start)
    with np.errstate(all="ignore"):
        ends = 1 - gammas[-1] / gammas[-2], 1 - (last * (1 - gammas[-1]) / (1 - gammas[-2])) ** 2
    exact, close = 3e-7, 2e-5  # tolerances for betas that are round decimals, and for others
    for rtol, digits in itertools.product((exact, close), (*range(1, 8), 17)):
        for name, end in itertools.product(NAMES, ends):
            pair = [float(f"{x:.{digits}g}") for x in (start, end)]
            pair = [1e-6, 1e-2] if name in BOUNDLESS else [min(pair), pair[1]]
            if not 0 < pair[0] <= pair[1] < 1:
                continue
            schedule = Schedule(name, shape[0], *pair)
            if all(np.allclose(schedule.buffers[k], values[k], rtol, 1e-7) for k in BUFFERS):
                return schedule
    return None
