"""Progress of one phase: time left, examples/s, share of time spent waiting for data, FLOP/s."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping

log = logging.getLogger(__name__)

SHOWN = ("loss", "retain", "forget", "gradient_norm")


class Clock:
    """Counts from `start`; compilation, part of the first steps, is kept out of the rates."""

    def __init__(
        self, phase: str, start: int, steps: int, examples: int, flops: float, spent: float
    ):
        self.phase, self.steps = phase, steps
        self._examples, self._flops, self._spent = examples, flops, spent
        self._began = self._steady = time.perf_counter()
        self._steady_step = start
        self._waited = 0.0
        self._printed = float("-inf")

    @property
    def seconds(self) -> float:
        """Of the whole phase, earlier launches included."""
        return self._spent + time.perf_counter() - self._began

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the fetching of a batch."""
        before = time.perf_counter()
        yield
        self._waited += time.perf_counter() - before

    def compiled(self, step: int) -> None:
        """The first step has been dispatched: rates count from here."""
        self._steady, self._steady_step, self._waited = time.perf_counter(), step, 0.0

    def rates(self, step: int) -> dict[str, float]:
        """Since the first step: {} until another one is done."""
        done, elapsed = step - self._steady_step, time.perf_counter() - self._steady
        if done < 1 or elapsed <= 0:
            return {}
        return {
            "examples_per_second": done * self._examples / elapsed,
            "data_wait": self._waited / elapsed,
            "flops_per_second": done * self._flops / elapsed,
        }

    def report(self, step: int, metrics: Mapping[str, float], every: float) -> None:
        """One line of progress, at most every so many seconds, and at the last step."""
        now = time.perf_counter()
        if now - self._printed < every and step + 1 < self.steps:
            return
        self._printed = now
        parts = [f"{self.phase} {step + 1}/{self.steps}"]
        parts.append("  ".join(f"{k} {metrics[k]:.4g}" for k in SHOWN if k in metrics))
        if rates := self.rates(step):
            left = (self.steps - step - 1) * self._examples / rates["examples_per_second"]
            parts.append(f"{rates['examples_per_second']:.0f} images/s")
            parts.append(f"{_si(rates['flops_per_second'])}FLOP/s")
            parts.append(f"waiting for data {rates['data_wait']:.0%}")
            parts.append(f"{_duration(left)} left")
        log.info("  |  ".join(parts))


def _si(value: float) -> str:
    for power, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= power:
            return f"{value / power:.3g} {prefix}"
    return f"{value:.3g} "


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
