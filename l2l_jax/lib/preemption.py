"""SIGTERM and Ctrl-C (SIGINT): save the training state, then exit; a second Ctrl-C exits at once.

In the training loop (`StopSignal.deferred`) a signal is recorded, and the loop asks after every
step whether to stop (`StopSignal.reached`). Anywhere else there is nothing to save: the signal
raises Preempted. Python drops an exception that a handler raises during garbage collection, and it
runs no handler while XLA compiles. A second thread therefore hears of every signal at once: it
tells the user what happens now, ends the process at the second Ctrl-C, and also if the main thread
has not ended within GRACE_SECONDS where nothing has to be saved.

Several processes of one run stop together; see lib/peers.py.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from l2l_jax.lib import peers, signals
from l2l_jax.lib.errors import Preempted
from l2l_jax.lib.signals import SIGNALS as SIGNALS

GRACE_SECONDS = 3.0  # for the main thread to end, where there is nothing to save


class StopSignal:
    """Whether a signal to stop has arrived, and whether exiting must wait for the training loop.

    saved: what of the run is on disk, for the last message. saving: the phase whose loop would
    save its state before it stops; "" outside of a loop.
    """

    def __init__(self, saved: str = "") -> None:
        self.raised = False
        self.number: int = signal.SIGTERM
        self.saved, self.saving = saved, ""
        self.ended = threading.Event()  # set when the main thread has left `watch_signals`

    @contextlib.contextmanager
    def deferred(self, phase: str = "the phase") -> Iterator[None]:
        """A block that asks `reached` itself; a signal inside it does not exit."""
        if self.raised:
            raise self.preempted()
        self.saving = phase
        try:
            yield
        finally:
            self.saving = ""
        if self.raised:  # after the last check of the block
            raise self.preempted()

    def reached(self, step: int) -> bool:
        """Whether to save and stop after this step; the same answer in all processes of a run.

        Several processes have to ask at every step.
        """
        if peers.joined():
            from jax.experimental import multihost_utils

            return multihost_utils.reached_preemption_sync_point(step)
        return self.raised

    def preempted(self, saved: str = "") -> Preempted:
        """The exception that ends the run; saved: what has been saved since."""
        self.saved = saved or self.saved
        return Preempted(self.number, self.saved)

    def note(self, number: int, _: FrameType | None) -> None:
        """The signal handler."""
        first, self.raised, self.number = not self.raised, True, number
        if not self.saving and first:
            raise self.preempted()

    def hear(self, number: int, count: int) -> None:
        """Called in the other thread for every signal; count: how many SIGINT there were."""
        if number == signal.SIGINT and count > 1:
            self._end(number, "at once")
        elif self.saving:
            signals.tell(f"{Preempted.NAMES[number]}: {signals.SAVING}")
        elif not self.ended.wait(GRACE_SECONDS):
            self._end(number, "in the middle of a long operation")

    def _end(self, number: int, when: str) -> None:
        signals.tell(f"{Preempted(number, self.saved)} (It ended {when}.)")
        os._exit(128 + number)


@contextlib.contextmanager
def watch_signals(saved: str = "") -> Iterator[StopSignal]:
    """Handles SIGTERM and SIGINT while the block runs; only in the main thread.

    saved: what is on disk before the block, for the last message.
    """
    flag = StopSignal(saved)
    if others := peers.joined():
        others.stop = flag
        yield flag
    elif not signals.in_main_thread():
        yield flag
    else:
        with signals.heard(flag.note, flag.hear):
            try:
                yield flag
            finally:
                flag.ended.set()
