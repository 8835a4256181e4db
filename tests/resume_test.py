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

from l2l_jax.engine.run import run
from l2l_jax.lib import files
from tests.helpers import (
    HASTY,
    ROOT,
    assert_same_bits,
    call,
    command,
    once,
    params_of,
    small_config,
)

pytestmark = pytest.mark.slow

SMALL = ("l2l_jax.main", "--config", "tests/configs/small.py", "--workdir")


def whole(folder):
    done = call(*SMALL, folder)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def uninterrupted():
    """The workdir of a run in one go, in a process like those of the other tests."""
    return once("uninterrupted", whole)


def retrain(folder):
    config = small_config(phases=("pretrain",))
    config.pretrain.on = "retain"
    config.evaluators = dict(reconstruction=dict())
    run(config, folder)


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


@pytest.mark.slow
def test_finished_is_finished(uninterrupted):
    before = (uninterrupted / "report.html").stat().st_mtime_ns
    again = call(*SMALL, uninterrupted)
    assert again.returncode == 0
    assert "is finished" in again.stderr
    assert (uninterrupted / "report.html").stat().st_mtime_ns == before


def wait_for(path, text, process):
    """Until the file says this; '' if it only has to be there."""
    for _ in range(6000):
        if path.exists() and (not text or text in path.read_text()):
            return
        assert process.poll() is None, "it ended before it was stopped"
        time.sleep(0.02)
    raise AssertionError(f"{text} never appeared in {path}")


MOMENTS = (  # of a run, in their order
    ("config.json", ""),
    ("metrics.jsonl", '"phase": "pretrain", "step": 0'),
    ("checkpoints/pretrain/2", ""),
    ("metrics.jsonl", '"phase": "unlearn", "step": 0'),
    ("metrics.jsonl", '"phase": "unlearn", "step": 4'),
    ("checkpoints/unlearn/6", ""),
)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.slow
def test_kill_9_at_any_moment(seed, uninterrupted, tmp_path):
    """Killed again and again shortly after random moments, then left to finish."""
    workdir, draw = tmp_path / "run", random.Random(seed)
    arguments, env = command(*SMALL, workdir)
    for at in sorted(draw.sample(range(len(MOMENTS)), 2)):
        path, text = MOMENTS[at]
        process = subprocess.Popen(arguments, env=env, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            wait_for(workdir / path, text, process)
            time.sleep(draw.uniform(0, 0.3))
        finally:
            process.kill()
            assert process.wait() == -signal.SIGKILL
    done = call(*SMALL, workdir, JAX_ENABLE_COMPILATION_CACHE=str(seed))  # 0: it compiles anew
    assert done.returncode == 0, done.stderr
    assert_like(workdir, uninterrupted)


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_continues(tmp_path):
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


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_passed_over(uninterrupted, tmp_path):
    workdir = shutil.copytree(uninterrupted, tmp_path / "run")
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


@pytest.mark.slow
def test_devices_may_change_on_the_way(uninterrupted, tmp_path):
    """Eight devices, then one, then four: the phases and steps add up, the losses agree."""
    workdir = tmp_path / "run"
    words = (*SMALL, workdir, "--config.runtime.save_every=2")
    for devices, marker in ((8, '"phase": "unlearn", "step": 2'), (1, '"step": 4')):
        arguments, env = command(*words, "--config.runtime.fsdp=-1", devices=devices, **HASTY)
        process = subprocess.Popen(arguments, env=env, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            wait_for(workdir / "metrics.jsonl", marker, process)
        finally:
            process.kill()
            process.wait()
    done = call(*words, "--config.runtime.fsdp=2", devices=4, **HASTY)
    assert done.returncode == 0, done.stderr
    losses = [
        {(r["phase"], r["step"]): r["loss"] for r in files.read_jsonl(w / "metrics.jsonl")}
        for w in (workdir, uninterrupted)
    ]
    assert list(losses[0]) == EVERY
    for key, loss in losses[0].items():
        assert abs(loss - losses[1][key]) < 1e-5, key


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def both(*words, second=()):
    """(exit code, what it printed, log) of two processes that form one run.

    words: of both, {} standing for who is who; second: further words of the second.
    """
    processes, address = [], f"localhost:{free_port()}"
    for rank, more in enumerate(((), second)):
        given = (str(word).format(f"{address},2,{rank}") for word in words)
        arguments, env = command(*given, *more, **HASTY)
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(subprocess.Popen(arguments, env=env, cwd=ROOT, **pipes))
    ended = []
    for process in processes:
        try:
            said = process.communicate(timeout=300)
        finally:
            process.kill()
        ended.append((process.returncode, *said))
    return ended


@pytest.mark.slow
def test_what_one_process_refuses_all_refuse(tmp_path):
    words = (*SMALL, tmp_path / "two", "--distributed={}")
    (code, _, log), (other_code, _, other_log) = both(*words, second=("--config.seed=1",))
    assert code == other_code == 2, (log, other_log)
    assert "Processes [1] run another config" in log
    assert "Processes [0] run another" in other_log
    assert not (tmp_path / "two" / "config.json").exists()


@pytest.mark.slow
def test_two_processes_are_one_run(uninterrupted, tmp_path):
    """Each reads its own rows and holds one device; the losses are those of one process.

    What one refuses before, both refuse (see pair.py), and what they then run is what is left.
    """
    (code, said, log), (other_code, other_said, other_log) = both(
        "tests.pair", "{}", tmp_path / "two", once("retrained", retrain)
    )
    assert code == other_code == 0, (log, other_log)
    assert said.count("Processes [1] cannot begin") == 2, said
    assert "unlearn.batch_size refused: unlearn.batch_size=7 cannot be" in other_said
    assert "runtime.keep refused: runtime.keep is at least 1" in other_said
    assert steps_of(tmp_path / "two") == EVERY
    one, two = uninterrupted, tmp_path / "two"
    for a, b in zip(*(files.read_jsonl(w / "metrics.jsonl") for w in (one, two)), strict=True):
        assert abs(a["loss"] - b["loss"]) < 1e-5
    one, two = (files.read_json(w / "results.json") for w in (one, two))
    assert two["counts"] == one["counts"]
    for side in ("retain", "forget"):
        for metric, value in one["unlearned"][side].items():
            assert two["unlearned"][side][metric] == pytest.approx(value, abs=0.05), (side, metric)
        assert two["unlearned"][side]["retrain_distance"] > two["retrained"][side].get(
            "retrain_distance", 0
        )
