"""SIGTERM means: save, then go. The flag is polled between steps and between evaluation batches."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import jax
import numpy as np


class Preempted(SystemExit):
    """Raised after the state is safe; the process ends with 143 = 128 + SIGTERM."""

    def __init__(self, where: str):
        super().__init__(143)
        self.where = where


class Flag:
    """Whether this process was asked to stop."""

    raised = False


@contextlib.contextmanager
def watch() -> Iterator[Flag]:
    """Turns SIGTERM into a flag while the block runs. Outside the main thread nothing is caught."""
    flag = Flag()

    def note(_: int, __: FrameType | None) -> None:
        flag.raised = True

    try:
        before = signal.signal(signal.SIGTERM, note)
    except ValueError:  # signals are the main thread's; a notebook thread lives without
        yield flag
        return
    try:
        yield flag
    finally:
        signal.signal(signal.SIGTERM, before)


def agreed(flag: Flag, step: int = 0) -> bool:
    """Whether any process was asked to stop; every process gets the same answer.

    Several processes ask each other at every tenth step only.
    """
    if jax.process_count() == 1:
        return flag.raised
    if step % 10:
        return False
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(flag.raised)).any())
