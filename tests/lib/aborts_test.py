"""An abort with an explanation is one line; one without shows what the library wrote."""

import subprocess
import sys

import pytest

from l2l_jax.lib import aborts
from tests.helpers import ROOT

ABORT = """
import ctypes, os, sys, time
from l2l_jax.lib import aborts, cli, signals

def explain():
    time.sleep(0.7)  # longer than lines of libraries are late
    if {code}:
        signals.tell("error: process 0 is lost")
        return {code}

cli.start_logging()
aborts.delay_lines()
cli.start_logging()
aborts.catch(lambda: 1)
aborts.catch(explain)
print("a line of Python", file=sys.stderr)
os.write(2, b"F1130 library.cc:80] a stack trace\\n")
ctypes.CDLL(None).abort()
"""


@pytest.mark.parametrize(
    ("code", "ends", "says"),
    [(75, 75, "error: process 0 is lost"), (0, -6, "F1130 library.cc:80] a stack trace")],
)
def test_an_abort(code, ends, says):
    words = [sys.executable, "-c", ABORT.format(code=code)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == ends
    assert done.stderr == f"a line of Python\n{says}\n"


LATE = """
import os, sys, time
from l2l_jax.lib import aborts
aborts.DELAY_SECONDS = 0.1
aborts.delay_lines()
os.write(2, b"of a library\\n")
print("of Python", file=sys.stderr)
time.sleep(1)
print("later", file=sys.stderr)
"""


def test_lines_of_libraries_are_shown_late():
    done = subprocess.run([sys.executable, "-c", LATE], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "of Python\nof a library\nlater\n"


def test_lines_can_be_dropped_from_a_moment_on():
    code = LATE.replace('print("of', 'aborts.late_lines(shown=False); print("of')
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "of Python\nlater\n"


def test_nothing_answers_at_a_free_port():
    assert not aborts.answers("localhost:1")


class RuntimeOfJax(Exception):
    """In place of jax.errors.JaxRuntimeError."""


@pytest.mark.parametrize(
    ("text", "cause", "may"),
    [
        ("Gloo: connection closed by peer", None, True),
        ("RESOURCE_EXHAUSTED: out of memory", None, False),
        ("Gloo: connection closed by peer", ValueError("not saved"), True),
    ],
)
def test_errors_that_a_lost_process_may_cause(text, cause, may, monkeypatch):
    import jax

    monkeypatch.setattr(jax.errors, "JaxRuntimeError", RuntimeOfJax)
    error = RuntimeOfJax(text)
    if cause:
        cause.__cause__ = error
    assert aborts.may_come_from_a_loss(cause or error) == may
    assert not aborts.may_come_from_a_loss(ValueError("a bug"))


def test_a_lost_peer_can_show_as_a_value_error():
    """JAX 0.10 raises it in process_allgather, by which orbax makes a folder of checkpoints."""
    lost = ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:4")
    assert aborts.may_come_from_a_loss(lost)
    wrapped = RuntimeError("no folder")
    wrapped.__cause__ = lost
    assert aborts.may_come_from_a_loss(wrapped)
