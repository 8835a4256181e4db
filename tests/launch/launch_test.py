"""What surrounds the steps of a launch: stopping on SIGTERM, profiles of a few steps."""

import os
import signal

import pytest

from l2l_jax.lib import preemption, profiler
from l2l_jax.lib.errors import Preempted


def test_sigterm_ends_at_once_where_nothing_can_be_lost():
    with preemption.watch_sigterm() as stop:
        with pytest.raises(Preempted) as error:
            os.kill(os.getpid(), signal.SIGTERM)
        assert error.value.code == 143
        assert stop.raised


def test_sigterm_waits_for_the_loop_to_ask():
    steps = []

    def loop():
        with preemption.watch_sigterm() as stop, stop.deferred():
            for step in range(3):
                steps.append(step)
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted):
        loop()
    assert steps == [0, 1, 2], "only the end of the block raises"


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
