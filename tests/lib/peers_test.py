"""What a process does when another one is lost, ends, or receives a signal."""

import signal

import pytest

from l2l_jax.lib import peers
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.lib.store import NOTICE, Store


class Client:
    """The key-value store of jax.distributed, in this process."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        if key in self.values and not allow_overwrite:
            raise ValueError(f"{key} is there")
        self.values[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.values.items() if key.startswith(folder)]


class Left(Exception):
    """In place of the end of the process."""


@pytest.fixture
def pair(monkeypatch):
    """The two processes of a run, both outside of a training loop, and what they have at hand."""

    def leave(self, code, line=""):
        raise Left(self.rank, code, line)

    monkeypatch.setattr(peers.Peers, "leave", leave)
    client = Client()
    both = [peers.Peers(Store(client, rank, 2, "localhost:1")) for rank in range(2)]
    for each in both:
        each.stop = StopSignal("pretrain is saved up to step 2 of 2")
    return client, both


def news(process):
    process._act(process._store.get("news"))


def test_a_process_without_a_beat_is_lost_and_named(pair, monkeypatch):
    _, (first, second) = pair
    now = [100.0]
    monkeypatch.setattr(peers.time, "monotonic", lambda: now[0])
    for beat, moment in enumerate((0.0, 10.0, 17.0)):
        now[0] = 100 + moment
        first._store.put("beat/0", beat)
        first._look_for_lost(first._store.get("beat"))
        news(first)
    now[0] = 119.0  # process 1 has never come
    first._store.put("beat/0", 9)
    first._look_for_lost(first._store.get("beat"))
    assert first._store.left() == {1: 75}, "process 0 does not wait for it"
    for process in (first, second):
        with pytest.raises(Left) as left:
            news(process)
        assert left.value.args[:2] == (process.rank, 75)
        assert left.value.args[2] == (
            "error: process 1 of 2 is lost: it does not answer any more; pretrain is saved up to "
            "step 2 of 2; run the same command again on all hosts to continue."
        )


def test_a_process_that_has_finished_is_not_lost(pair, monkeypatch):
    client, (first, _) = pair
    now = [0.0]
    monkeypatch.setattr(peers.time, "monotonic", lambda: now[0])
    first._store.put("news/left/1", 0)
    for moment in (0.0, 60.0):
        now[0] = moment
        first._store.put("beat/0", moment)
        first._look_for_lost(first._store.get("beat"))
        news(first)
    assert "l2l_jax/news/lost" not in client.values


def test_processes_in_one_training_loop_stop_by_the_preemption_service(pair):
    client, both = pair
    for process in both:
        process.stop.saving = "unlearn"
    both[1]._hear(signal.SIGTERM, 0)
    both[0]._hear(signal.SIGTERM, 0)  # Slurm sends it to all
    for process in (*both, *both):
        news(process)
    assert NOTICE in client.values
    assert all(process.stop.raised for process in both)


@pytest.mark.parametrize("phases", [("", ""), ("unlearn", ""), ("unlearn", "pretrain")])
def test_processes_elsewhere_end_at_once(pair, phases):
    client, both = pair
    for process, phase in zip(both, phases, strict=True):
        process.stop.saving = phase
    both[0]._hear(signal.SIGTERM, 0)
    news(both[0])
    news(both[1])
    for process in both:
        with pytest.raises(Left) as left:
            news(process)
        assert left.value.args[1] == 143
        assert "stopped by SIGTERM: pretrain is saved up to step 2 of 2" in left.value.args[2]
    assert NOTICE not in client.values


def test_a_loop_that_ends_before_the_step_to_stop_at_ends_the_run(pair, monkeypatch):
    _, both = pair
    monkeypatch.setattr(peers, "GRACE_SECONDS", -1.0)
    for process in both:
        process.stop.saving = "unlearn"
    both[0]._hear(signal.SIGINT, 1)
    news(both[0])
    news(both[1])
    both[0].stop.saving = ""
    with pytest.raises(Left) as left:
        news(both[0])
    assert left.value.args[1] == 130


def test_the_exit_code_of_a_process_that_fails_is_that_of_all(pair, monkeypatch):
    _, (first, second) = pair
    first._store.put("news/left/0", 2)
    news(second)  # it may end by itself, with a message of its own
    monkeypatch.setattr(peers, "GRACE_SECONDS", -1.0)
    with pytest.raises(Left) as left:
        news(second)
    assert left.value.args == (1, 2, "process 0 ended with exit code 2; its log says why.")


def test_the_second_ctrl_c_ends_at_once(pair):
    _, (first, _) = pair
    first._hear(signal.SIGINT, 1)
    with pytest.raises(Left) as left:
        first._hear(signal.SIGINT, 2)
    assert left.value.args[1] == 130


def test_the_end_of_process_0_explains_the_abort_of_the_others(pair, monkeypatch, capfd):
    _, (first, second) = pair
    reachable = [True]
    monkeypatch.setattr(peers.aborts, "answers", lambda _: reachable[0])
    assert second._aborted() is None, "another reason: process 0 answers"
    reachable[0] = False
    assert first._aborted() is None
    assert second._aborted() == 75
    second._left = {0: 143}
    assert second._aborted() == 143
    assert capfd.readouterr().err.count("process 0 of 2 is lost") == 1
