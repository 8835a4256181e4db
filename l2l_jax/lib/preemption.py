"""SIGTERM: save the training state, then exit.

In the training loop (`StopSignal.deferred`) the signal is recorded, and the loop checks for it
between steps. Anywhere else there is nothing to save, and the process exits at once.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from l2l_jax.lib.errors import Preempted


class StopSignal:
    """Whether SIGTERM has arrived, and whether exiting must wait for the training loop."""

    def __init__(self) -> None:
        self.raised = False
        self._deferred = False

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that checks `raised` itself; SIGTERM inside it does not exit."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.raised:  # after the last check of the block
            raise Preempted("a point with nothing to save")

    def note(self, _: int, __: FrameType | None) -> None:
        """The signal handler."""
        self.raised = True
        if not self._deferred:
            raise Preempted("a point with nothing to save")


@contextlib.contextmanager
def watch_sigterm() -> Iterator[StopSignal]:
    """Handles SIGTERM while the block runs; in another than the main thread it handles nothing."""
    flag = StopSignal()
    try:
        previous = signal.signal(signal.SIGTERM, flag.note)
    except ValueError:  # Python allows handlers in the main thread only
        yield flag
        return
    try:
        yield flag
    finally:
        signal.signal(signal.SIGTERM, previous)
