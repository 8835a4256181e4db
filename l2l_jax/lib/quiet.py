"""Keeps lines of libraries, on which nobody can act, away from the user."""

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from l2l_jax.lib.errors import Preempted

SETTINGS = {
    "TF_CPP_MIN_LOG_LEVEL": "2",  # of TensorFlow and XLA: errors only
    "TF_ENABLE_ONEDNN_OPTS": "0",  # TensorFlow writes event files here and computes nothing
}
# What absl and TensorFlow write before a Python program can change their level.
START_UP = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IWE]\d{4} \d\d:\d\d:[\d.]+ "
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
    rb"|To enable the following instructions: .* rebuild TensorFlow"
)


def set_levels() -> None:
    """Asks the libraries for errors only; what the user has set in the environment stays."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def without_start_up_lines() -> Iterator[None]:
    """Drops the lines of START_UP that are written to file 2 inside the block, and no others."""
    try:
        original = os.dup(2)
    except OSError:  # the process has no stderr
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
            kept.seek(0)
            for line in kept:
                if not START_UP.match(line):
                    os.write(2, line)


class HideOrbax(logging.Filter):
    """Drops orbax's lines: it logs a failed write a dozen times, and NotSaved reports it once."""

    def filter(self, record: logging.LogRecord) -> bool:
        origin = record.getMessage() if record.name == "asyncio" else record.pathname
        return not ("orbax" in origin and record.levelno < logging.CRITICAL)


def unraisable(args: Any) -> None:
    """Hides two errors that nobody can act on.

    The threads of tensorstore use an event loop that a failed write has closed. Python drops an
    exception that a signal handler raises during garbage collection.
    """
    ending = isinstance(args.exc_value, Preempted | KeyboardInterrupt)
    if not ending and str(args.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(args)
