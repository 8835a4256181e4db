"""SIGTERM means: save what only memory holds, then go.

While there is such a state (`Flag.deferred`, the training loop) the signal is noted and polled
between steps; anywhere else there is nothing to save and the process ends at once.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from l2l_jax.lib.errors import Preempted


class Flag:
    """Whether this process was asked to stop, and whether it must first be let finish a step."""

    def __init__(self) -> None:
        self.raised = False
        self._deferred = False

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that polls `raised` itself."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.raised:  # after the last poll
            raise Preempted("a point with nothing to save")

    def note(self, _: int, __: FrameType | None) -> None:
        """The signal handler."""
        self.raised = True
        if not self._deferred:
            raise Preempted("a point with nothing to save")


@contextlib.contextmanager
def watch() -> Iterator[Flag]:
    """Handles SIGTERM while the block runs. Outside the main thread nothing is handled."""
    flag = Flag()
    try:
        before = signal.signal(signal.SIGTERM, flag.note)
    except ValueError:  # signals are the main thread's; a notebook thread lives without
        yield flag
        return
    try:
        yield flag
    finally:
        signal.signal(signal.SIGTERM, before)
