"""Interrupted in every way and continued by the same command, a run ends at the same bits."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time

import pytest

from l2l_jax.lib import files
from l2l_jax.run import run
from tests.helpers import ROOT, assert_same_bits, call, command, params_of, small_config

pytestmark = pytest.mark.slow

SMALL = ("l2l_jax.main", "--config", "tests/configs/small.py", "--workdir")


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """(workdir, seconds) of a run in one go, in a process like those of the other tests."""
    workdir, began = tmp_path_factory.mktemp("whole") / "run", time.perf_counter()
    done = call(*SMALL, workdir)
    assert done.returncode == 0, done.stderr
    return workdir, time.perf_counter() - began


@pytest.fixture(scope="module")
def uninterrupted(timed):
    return timed[0]


def steps_of(workdir):
    return [(r["phase"], r["step"]) for r in files.read_jsonl(workdir / "metrics.jsonl")]


EVERY = [("pretrain", i) for i in range(2)] + [("unlearn", i) for i in range(6)]


def assert_like(workdir, uninterrupted):
    assert_same_bits(params_of(workdir), params_of(uninterrupted))
    assert steps_of(workdir) == EVERY, "no metric is lost, none is there twice"
    ours, theirs = (json.loads((w / "results.json").read_text()) for w in (workdir, uninterrupted))
    assert ours["tasks"] == theirs["tasks"]
    assert ours["digests"]["weights"] == theirs["digests"]["weights"]
    assert (workdir / "report.html").exists()


def test_finished_is_finished(uninterrupted):
    before = (uninterrupted / "report.html").stat().st_mtime_ns
    again = call(*SMALL, uninterrupted)
    assert again.returncode == 0
    assert "is finished" in again.stderr
    assert (uninterrupted / "report.html").stat().st_mtime_ns == before


@pytest.mark.parametrize("seed", range(2))
def test_kill_9_at_any_moment(seed, timed, tmp_path):
    """Killed again and again at random moments, then left to finish."""
    (uninterrupted, seconds), workdir = timed, tmp_path / "run"
    moments, kills = random.Random(seed), 0
    arguments, env = command(*SMALL, workdir)
    for _ in range(4):
        process = subprocess.Popen(arguments, env=env, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=seconds * moments.uniform(0.2, 0.8))
            if kills:
                break
            shutil.rmtree(workdir)  # this machine has become faster: once more, and earlier
            seconds /= 2
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    done = call(*SMALL, workdir)
    assert done.returncode == 0, done.stderr
    assert kills, "the run was faster than the first kill"
    assert_like(workdir, uninterrupted)


def wait_for(path, text, process):
    for _ in range(600):
        if path.exists() and text in path.read_text():
            return
        assert process.poll() is None, "it ended before it was stopped"
        time.sleep(0.1)
    raise AssertionError(f"{text} never appeared in {path}")


def test_sigterm_saves_and_the_same_command_continues(uninterrupted, tmp_path):
    """Between two periodic checkpoints, which this run does not even have."""
    workdir = tmp_path / "run"
    words = (*SMALL, workdir, "--config.runtime.save_every=1000", "--config.unlearn.steps=400")
    arguments, env = command(*words)
    process = subprocess.Popen(arguments, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(workdir / "metrics.jsonl", '"phase": "unlearn", "step": 3', process)
    process.terminate()
    _, log = process.communicate(timeout=120)
    assert process.returncode == 143, log
    assert "the same command continues" in log
    (saved,) = [p.name for p in (workdir / "checkpoints" / "unlearn").iterdir() if p.is_dir()]
    assert 0 < int(saved) < 400
    logged = [step for phase, step in steps_of(workdir) if phase == "unlearn"]
    assert logged == list(range(int(saved))), "metrics up to the checkpoint"
    whole = call(*SMALL, tmp_path / "whole", *words[5:])
    done = call(*words)
    assert f"continuing from step {saved} of 400" in done.stderr
    assert_same_bits(params_of(workdir), params_of(tmp_path / "whole"))
    assert whole.returncode == done.returncode == 0


def test_a_damaged_newest_checkpoint_is_passed_over(uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    first = call(*SMALL, workdir)
    assert first.returncode == 0, first.stderr
    folder = workdir / "checkpoints" / "unlearn"
    data = max((p for p in (folder / "6").rglob("*") if p.is_file()), key=os.path.getsize)
    data.write_bytes(data.read_bytes()[:100])
    (workdir / "report.html").unlink()
    done = call(*SMALL, workdir)
    assert done.returncode == 0, done.stderr
    assert "6 is damaged" in done.stderr
    assert "continuing from step 4 of 6" in done.stderr
    assert (folder / "damaged-6").is_dir()
    assert_like(workdir, uninterrupted)


def test_devices_may_change_on_the_way(tmp_path):
    """Eight devices, then one, then four: the phases and steps add up, the losses agree."""
    workdir = tmp_path / "run"
    words = (*SMALL, workdir, "--config.runtime.save_every=2")
    for devices, marker in ((8, '"phase": "unlearn", "step": 2'), (1, '"step": 4')):
        arguments, env = command(*words, "--config.runtime.fsdp=-1", devices=devices)
        process = subprocess.Popen(arguments, env=env, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            wait_for(workdir / "metrics.jsonl", marker, process)
        finally:
            process.kill()
            process.wait()
    done = call(*words, "--config.runtime.fsdp=2", devices=4)
    assert done.returncode == 0, done.stderr
    whole = call(*SMALL, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    losses = [
        {(r["phase"], r["step"]): r["loss"] for r in files.read_jsonl(w / "metrics.jsonl")}
        for w in (workdir, tmp_path / "whole")
    ]
    assert list(losses[0]) == EVERY
    for key, loss in losses[0].items():
        assert abs(loss - losses[1][key]) < 1e-5, key


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def both(tmp_path, *words_of_second):
    """(exit code, log) of two processes that form one run, the second with further words."""
    processes, address = [], f"localhost:{free_port()}"
    for rank, more in enumerate(((), words_of_second)):
        words = (*SMALL, tmp_path / "two", f"--distributed={address},2,{rank}", *more)
        arguments, env = command(*words)
        processes.append(
            subprocess.Popen(arguments, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        )
    ended = []
    for process in processes:
        try:
            log = process.communicate(timeout=240)[1]
        finally:
            process.kill()
        ended.append((process.returncode, log))
    return ended


@pytest.mark.parametrize(
    ("word", "first", "second"),
    [
        ("--config.seed=1", "Processes [1] run another config", "Processes [0] run another"),
        ("--config.unlearn.batch_size=7", "Processes [1] cannot begin", "batch_size=7 cannot be"),
        ("--config.runtime.keep=0", "Processes [1] cannot begin", "runtime.keep is at least 1"),
    ],
)
def test_what_one_process_refuses_all_refuse(word, first, second, tmp_path):
    (code, log), (other_code, other_log) = both(tmp_path, word)
    assert code == other_code == 2, (log, other_log)
    assert first in log
    assert second in other_log
    assert not (tmp_path / "two" / "config.json").exists()


def test_two_processes_are_one_run(tmp_path):
    """Each reads its own rows and holds one device; the losses are those of one process."""
    config = small_config()
    run(config, tmp_path / "one")
    (code, log), (other_code, other_log) = both(tmp_path)
    assert code == other_code == 0, (log, other_log)
    assert steps_of(tmp_path / "two") == EVERY
    for a, b in zip(*(files.read_jsonl(tmp_path / n / "metrics.jsonl") for n in ("one", "two")),
                    strict=True):  # fmt: skip
        assert abs(a["loss"] - b["loss"]) < 1e-5
    one, two = (files.read_json(tmp_path / n / "results.json") for n in ("one", "two"))
    assert two["counts"] == one["counts"]
    for side in ("retain", "forget"):
        for metric, value in one["unlearned"][side].items():
            assert two["unlearned"][side][metric] == pytest.approx(value, abs=0.05), (side, metric)
