"""An abort by a C++ library: what it wrote before, and whether the loss of process 0 explains it.

JAX aborts a process that cannot reach process 0 any more, with a stack trace. In the commands of
this project, what C++ libraries write is therefore shown DELAY_SECONDS later, and an abort that
has an explanation ends with the line of that explanation alone.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable

DELAY_SECONDS = 0.5
CONNECT_SECONDS = 3.0
MAX_KEPT_BYTES = 2**16
# How the text of an error begins that an operation between processes raises.
LOSS_CODES = ("UNKNOWN: ", "UNAVAILABLE: ", "INTERNAL: ", "ABORTED: ", "DEADLINE_EXCEEDED: ")

_kept: list["LateLines"] = []  # the one of this process
Explain = Callable[[], int | None]
_explanations: list[Explain] = []  # the last one counts
_handlers: list[object] = []  # ctypes does not keep it


class LateLines:
    """What is written to file 2 is shown after a pause; Python's own stderr is not delayed."""

    def __init__(self) -> None:
        self._shown, self._dropped, self._bytes = os.dup(2), False, b""
        self._lock, self.held = threading.Lock(), False  # held: nothing is shown for now
        self._reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        sys.stderr = os.fdopen(self._shown, "w", buffering=1, errors="backslashreplace")
        threading.Thread(target=self._relay, daemon=True, name="late lines").start()

    def end(self, shown: bool) -> None:
        """Shows or drops what is not shown yet; later lines are shown at once, or dropped."""
        with self._lock:
            if shown:
                while select.select([self._reading], [], [], 0)[0]:
                    self._bytes += os.read(self._reading, MAX_KEPT_BYTES)
                self._show()
                os.dup2(self._shown, 2)
            self._dropped = not shown

    def _show(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._shown, b"" if self._dropped else self._bytes)
        self._bytes = b""

    def _relay(self) -> None:
        while True:
            wait = DELAY_SECONDS if self._bytes else None
            ready = bool(select.select([self._reading], [], [], wait)[0])
            with self._lock:
                if ready and select.select([self._reading], [], [], 0)[0]:
                    self._bytes += os.read(self._reading, MAX_KEPT_BYTES)
                if not self.held and (not ready or len(self._bytes) >= MAX_KEPT_BYTES):
                    self._show()


def delay_lines() -> None:
    """From now on the lines of C++ libraries are shown late; sys.stderr is another object."""
    with contextlib.suppress(OSError):  # the process has no stderr
        if not _kept:
            _kept.append(LateLines())


def late_lines(shown: bool) -> None:
    """Shows or drops the lines that are not shown yet, if they are shown late."""
    for lines in _kept:
        lines.end(shown)


def answers(address: str) -> bool:
    """Whether something answers at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def catch(explain: Explain) -> None:
    """Calls `explain` if the process is aborted; it ends with that exit code, if it is one.

    A later call replaces the function. A handler of Python would not run then; this one runs in the
    thread that aborts.
    """
    _explanations.append(explain)
    if _handlers:
        return
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def aborted(_: int) -> None:
        libc.signal(signal.SIGABRT, None)  # the default: the process ends
        for lines in _kept:
            lines.held = True  # to explain can take seconds
        code = _explanations[-1]()
        late_lines(shown=code is None)
        if code is not None:
            os._exit(code)

    _handlers.append(aborted)
    libc.signal(signal.SIGABRT, ctypes.cast(aborted, ctypes.c_void_p))


def may_come_from_a_loss(error: BaseException) -> bool:
    """Whether an error can come from an operation in which another process was lost.

    Such an operation raises JaxRuntimeError or, in some of JAX's own functions, ValueError with
    the same text, such as "UNKNOWN: Gloo AllGather failed: Connection closed by peer".
    """
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, sys.modules["jax"].errors.JaxRuntimeError):
            return "RESOURCE_EXHAUSTED" not in str(chain)
        if isinstance(chain, ValueError) and str(chain).startswith(LOSS_CODES):
            return True
        chain = chain.__cause__ or chain.__context__
    return False
