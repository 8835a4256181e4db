"""SIGTERM and Ctrl-C (SIGINT): save the training state, then exit; a second Ctrl-C exits at once.

In the training loop (`StopSignal.deferred`) a signal is recorded, and the loop checks for it
between steps. Anywhere else there is nothing to save: the signal raises Preempted. Python runs its
signal handlers in the main thread between two instructions, so never while XLA compiles a program,
which can take minutes, and it drops an exception that a handler raises during garbage collection. A
second thread therefore hears of every signal at once: it tells the user what happens now, ends the
process at the second Ctrl-C, and also if the main thread has not ended within GRACE_SECONDS where
nothing has to be saved.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from l2l_jax.lib.errors import Preempted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_SECONDS = 3.0  # for the main thread to end, where there is nothing to save


class StopSignal:
    """Whether a signal to stop has arrived, and whether exiting must wait for the training loop.

    saved: what of the run is on disk, for the last message.
    """

    def __init__(self, saved: str = "") -> None:
        self.raised = False
        self.number: int = signal.SIGTERM  # the signal; that of another process is not known
        self.saved = saved
        self.ended = threading.Event()  # set when the main thread has left `watch_signals`
        self._deferred = False

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that checks `raised` itself; a signal inside it does not exit."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.raised:  # after the last check of the block
            raise self.preempted()

    def preempted(self, saved: str = "") -> Preempted:
        """The exception that ends the run; saved: what has been saved since."""
        self.saved = saved or self.saved
        return Preempted(self.number, self.saved)

    def note(self, number: int, _: FrameType | None) -> None:
        """The signal handler."""
        first, self.raised, self.number = not self.raised, True, number
        if not self._deferred and first:
            raise self.preempted()

    def hear(self, number: int, count: int) -> None:
        """Called in the other thread for every signal; count: how many SIGINT there were."""
        if number == signal.SIGINT and count > 1:
            self._end(number, "at once")
        elif self._deferred:
            _tell(
                f"{Preempted.NAMES[number]}: the step in progress is finished and saved, then the "
                "run ends. Ctrl-C (again) ends it at once, without saving."
            )
        elif not self.ended.wait(GRACE_SECONDS):
            self._end(number, "in the middle of a long operation")

    def _end(self, number: int, when: str) -> None:
        _tell(f"{Preempted(number, self.saved)} (It ended {when}.)")
        os._exit(128 + number)


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):  # stderr may be closed
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{line}\n".encode())


@contextlib.contextmanager
def watch_signals(saved: str = "") -> Iterator[StopSignal]:
    """Handles SIGTERM and SIGINT while the block runs; only in the main thread.

    saved: what is on disk before the block, for the last message.
    """
    flag = StopSignal(saved)
    if threading.current_thread() is not threading.main_thread():
        yield flag  # Python allows handlers in the main thread only
        return
    with contextlib.ExitStack() as stack:
        for number in SIGNALS:
            stack.callback(signal.signal, number, signal.signal(number, flag.note))
        _start_listening(flag, stack)
        stack.callback(flag.ended.set)
        yield flag


def _start_listening(flag: StopSignal, stack: contextlib.ExitStack) -> None:
    """Starts the thread that hears of signals; it ends when the stack closes.

    Python writes the number of each signal into a pipe, whatever the main thread does.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def listen() -> None:
        interrupts = 0
        while received := os.read(reading, 1):
            number = received[0]
            interrupts += number == signal.SIGINT
            if number in SIGNALS:
                threading.Thread(target=flag.hear, args=(number, interrupts), daemon=True).start()
        os.close(reading)

    threading.Thread(target=listen, daemon=True, name="signals").start()
    stack.callback(os.close, writing)
    stack.callback(signal.set_wakeup_fd, previous)
