"""Hearing of SIGTERM and Ctrl-C (SIGINT) at once, whatever the main thread does.

Python runs its signal handlers in the main thread between two instructions, so never while XLA
compiles a program, which can take minutes. But it writes the number of each signal into a pipe at
once, and a second thread reads it.
"""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAVING = (
    "the step in progress is finished and saved, then the run ends. Ctrl-C (again) ends it at "
    "once, without saving."
)
prefix = ""  # of every line of this process: "[RANK] " unless its rank is 0


def in_main_thread() -> bool:
    """Whether this is the main thread, the only one in which Python allows signal handlers."""
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def heard(
    handler: Callable[[int, FrameType | None], None], hear: Callable[[int, int], None]
) -> Iterator[None]:
    """Handles SIGNALS while the block runs; only in the main thread.

    handler: the signal handler of Python. hear: called in another thread with the number of each
    signal, and how many SIGINT there were.
    """
    with contextlib.ExitStack() as stack:
        for number in SIGNALS:
            stack.callback(signal.signal, number, signal.signal(number, handler))
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

        def listen() -> None:
            interrupts = 0
            while received := os.read(reading, 1):
                number = received[0]
                interrupts += number == signal.SIGINT
                if number in SIGNALS:
                    threading.Thread(target=hear, args=(number, interrupts), daemon=True).start()
            os.close(reading)

        threading.Thread(target=listen, daemon=True, name="signals").start()
        stack.callback(os.close, writing)
        stack.callback(signal.set_wakeup_fd, previous)
        yield


def tell(line: str) -> None:
    """Writes a line to stderr, from any thread."""
    with contextlib.suppress(OSError, ValueError):  # stderr may be closed
        number = sys.stderr.fileno() if sys.stderr else 2
        os.write(number, f"{prefix}{line}\n".encode())


def stdout_is_closed() -> bool:
    """Whether stdout is a pipe whose other end is closed, as after a `head` that has ended."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
