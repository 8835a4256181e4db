"""Keeps the start-up lines of C++ libraries, such as TensorFlow, away from the user."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

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
