"""Progress of one phase: time left, examples/s, fraction of time waiting for data, FLOP/s."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping

log = logging.getLogger(__name__)

LOGGED_METRICS = ("loss", "retain", "forget", "gradient_norm")


class Progress:
    """Measures the speed of a phase from step `start` on; the rates exclude compilation.

    steps: planned in all. examples, flops: of one step. spent: seconds of earlier launches.
    """

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
        """Seconds spent on the phase, earlier launches included."""
        return self._spent + time.perf_counter() - self._began

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A block that fetches a batch; its time counts as waiting for data."""
        before = time.perf_counter()
        yield
        self._waited += time.perf_counter() - before

    def compiled(self, step: int) -> None:
        """Restarts the rates: to be called once the first step has been compiled."""
        self._steady, self._steady_step, self._waited = time.perf_counter(), step, 0.0

    def rates(self, step: int) -> dict[str, float]:
        """Rates since `compiled`, by name; {} before another step is done.

        data_wait is a fraction of the time, the others are per second.
        """
        done, elapsed = step - self._steady_step, time.perf_counter() - self._steady
        if done < 1 or elapsed <= 0:
            return {}
        return {
            "examples_per_second": done * self._examples / elapsed,
            "data_wait": self._waited / elapsed,
            "flops_per_second": done * self._flops / elapsed,
        }

    def report(self, step: int, metrics: Mapping[str, float], every: float) -> None:
        """Logs one line, at most once in `every` seconds, and after the last step."""
        now = time.perf_counter()
        if now - self._printed < every and step + 1 < self.steps:
            return
        self._printed = now
        parts = [f"{self.phase} {step + 1}/{self.steps}"]
        parts.append("  ".join(f"{k} {metrics[k]:.4g}" for k in LOGGED_METRICS if k in metrics))
        if rates := self.rates(step):
            remaining = (self.steps - step - 1) * self._examples / rates["examples_per_second"]
            parts.append(f"{rates['examples_per_second']:.0f} images/s")
            parts.append(f"{_si(rates['flops_per_second'])}FLOP/s")
            parts.append(f"waiting for data {rates['data_wait']:.0%}")
            parts.append(f"{_duration(remaining)} left")
        log.info("  |  ".join(parts))


def _si(value: float) -> str:
    """1.23e9 -> "1.23 G"."""
    for power, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= power:
            return f"{value / power:.3g} {prefix}"
    return f"{value:.3g} "


def _duration(seconds: float) -> str:
    """3661 -> "1:01:01"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
