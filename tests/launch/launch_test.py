"""What surrounds the steps of a launch: stopping by signals, profiles of a few steps."""

import os
import signal
import subprocess
import sys
import time

import pytest

from l2l_jax.lib import cli, preemption, profiler
from l2l_jax.lib.errors import Preempted
from tests.helpers import ROOT

SIGNALS = [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]


@pytest.mark.parametrize(("number", "code", "name"), SIGNALS)
def test_a_signal_ends_at_once_where_nothing_can_be_lost(number, code, name):
    before = [signal.getsignal(each) for each in preemption.SIGNALS]
    with preemption.watch_signals("phase is saved up to step 3 of 9") as stop:
        with pytest.raises(Preempted) as error:
            os.kill(os.getpid(), number)
        assert error.value.code == code
        assert str(error.value) == (
            f"stopped by {name}: phase is saved up to step 3 of 9; run the same command again to "
            "continue."
        )
        assert stop.raised
    assert [signal.getsignal(each) for each in preemption.SIGNALS] == before


@pytest.mark.parametrize(("number", "code", "name"), SIGNALS)
def test_a_signal_waits_for_the_loop_to_ask(number, code, name):
    steps = []

    def loop():
        with preemption.watch_signals() as stop, stop.deferred():
            for step in range(3):
                steps.append(step)
                if step == 1:
                    os.kill(os.getpid(), number)

    with pytest.raises(Preempted, match=f"stopped by {name}: no step had been taken") as error:
        loop()
    assert error.value.code == code
    assert steps == [0, 1, 2], "only the end of the block raises"


# A command that spends its time in one C call, as when XLA compiles: no Python handler can run.
LONG_CALL = """
import hashlib, sys
from l2l_jax.lib import cli, preemption
preemption.GRACE_SECONDS = 0.3

def main():
    with preemption.watch_signals("the first phase is saved") as stop:
        if sys.argv[1] == "deferred":
            with stop.deferred():
                call()
        call()

def call():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)

cli.run_with_clear_errors(main)
"""


@pytest.mark.parametrize(("where", "signals"), [("outside", 1), ("deferred", 2)])
def test_ctrl_c_ends_a_long_call_without_python(where, signals):
    """The first Ctrl-C where there is nothing to save; in the training loop the second one."""
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_CALL, where],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    if signals == 2:
        line = process.stderr.readline()
        assert "the step in progress is finished and saved" in line
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=20)
    assert process.returncode == 130, text
    assert text.startswith("stopped by Ctrl-C: the first phase is saved; run the same command"), (
        text
    )
    assert "Traceback" not in text


def test_ctrl_c_before_the_run_begins_is_one_line(capsys):
    def main():
        raise KeyboardInterrupt

    previous = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as error:
        cli.run_with_clear_errors(main)
    signal.signal(signal.SIGINT, previous)
    assert error.value.code == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C; nothing was changed.\n"


@pytest.mark.parametrize(("begin", "traced"), [(0, [3, 4]), (4, [4, 5]), (9, [9])])
def test_a_profile_covers_its_steps_also_after_a_restart(begin, traced, tmp_path, monkeypatch):
    """Steps 3 and 4 of 10, or the first two of a launch that begins later."""
    running, seen = [], []
    monkeypatch.setattr(profiler.jax.profiler, "start_trace", lambda _, **__: running.append(True))
    monkeypatch.setattr(profiler.jax.profiler, "stop_trace", running.clear)
    trace = profiler.Profile(tmp_path, 3, 2, begin)
    for step in range(begin, 10):
        trace.before(step, None)
        if running:
            seen.append(step)
    trace.stop(None)
    assert seen == traced
    assert not running
