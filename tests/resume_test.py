"""A run that is interrupted and continued by the same command gives bit-identical results."""

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
FEW_FIGURES = "--config.evaluators={'reconstruction': {}}"  # where no test looks at the others


def run_small(folder):
    done = call(*SMALL, folder)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def uninterrupted():
    """The workdir of an uninterrupted run, by a process like those of the other tests."""
    return once("uninterrupted", run_small)


def retrain(folder):
    config = small_config(phases=("pretrain",))
    config.pretrain.on = "retain"
    config.evaluators = dict(reconstruction=dict())
    run(config, folder)


def logged_steps(workdir):
    return [(r["phase"], r["step"]) for r in files.read_jsonl(workdir / "metrics.jsonl")]


ALL_STEPS = [("pretrain", i) for i in range(2)] + [("unlearn", i) for i in range(6)]


def assert_same_run(workdir, uninterrupted):
    assert_same_bits(params_of(workdir), params_of(uninterrupted))
    assert logged_steps(workdir) == ALL_STEPS, "every step has exactly one record"
    ours, theirs = (json.loads((w / "results.json").read_text()) for w in (workdir, uninterrupted))
    assert ours["tasks"] == theirs["tasks"]
    assert ours["digests"]["weights"] == theirs["digests"]["weights"]
    assert (workdir / "report.html").exists()


@pytest.mark.slow
def test_a_finished_run_does_nothing(uninterrupted):
    before = (uninterrupted / "report.html").stat().st_mtime_ns
    again = call(*SMALL, uninterrupted)
    assert again.returncode == 0
    assert "is finished" in again.stderr
    assert (uninterrupted / "report.html").stat().st_mtime_ns == before


def wait_for(path, text, process):
    """Waits until the file contains the text, or exists if the text is empty."""
    for _ in range(6000):
        if path.exists() and (not text or text in path.read_text()):
            return
        assert process.poll() is None, "the process ended before the test stopped it"
        time.sleep(0.02)
    raise AssertionError(f"{text} never appeared in {path}")


MOMENTS = (  # of a run, in order: (file, text in it)
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
    """Kills the run shortly after two random moments, then lets it finish."""
    workdir, draw = tmp_path / "run", random.Random(seed)
    arguments, env = command(*SMALL, workdir)
    for index in sorted(draw.sample(range(len(MOMENTS)), 2)):
        path, text = MOMENTS[index]
        process = subprocess.Popen(arguments, env=env, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            wait_for(workdir / path, text, process)
            time.sleep(draw.uniform(0, 0.3))
        finally:
            process.kill()
            assert process.wait() == -signal.SIGKILL
    done = call(*SMALL, workdir, JAX_ENABLE_COMPILATION_CACHE=str(seed))  # 0: no cached programs
    assert done.returncode == 0, done.stderr
    assert_same_run(workdir, uninterrupted)


@pytest.mark.slow
def test_ctrl_c_saves_the_step_in_progress_of_a_run_with_workers(tmp_path):
    """A terminal sends SIGINT to all processes: those that read the images have to ignore it."""
    words = (*SMALL, tmp_path / "run", "--config.unlearn.steps=4000",
             "--config.runtime.save_every=4000", "--config.runtime.workers=1")  # fmt: skip
    arguments, env = command(*words)
    process = subprocess.Popen(
        arguments, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(tmp_path / "run" / "metrics.jsonl", '"phase": "unlearn", "step": 3', process)
    os.killpg(process.pid, signal.SIGINT)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 130, log
    assert "Traceback" not in log
    (saved,) = [p.name for p in (tmp_path / "run/checkpoints/unlearn").iterdir() if p.is_dir()]
    assert f"stopped by Ctrl-C: unlearn is saved up to step {saved} of 4000; run the same" in log


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_continues(tmp_path):
    """The run has no periodic checkpoints: the signal alone causes the save."""
    workdir = tmp_path / "run"
    words = (*SMALL, workdir, "--config.runtime.save_every=1000", "--config.unlearn.steps=400",
             FEW_FIGURES)  # fmt: skip
    arguments, env = command(*words)
    process = subprocess.Popen(arguments, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(workdir / "metrics.jsonl", '"phase": "unlearn", "step": 3', process)
    process.terminate()
    _, log = process.communicate(timeout=120)
    assert process.returncode == 143, log
    assert "run the same command again to continue" in log
    (saved,) = [p.name for p in (workdir / "checkpoints" / "unlearn").iterdir() if p.is_dir()]
    assert 0 < int(saved) < 400
    logged = [step for phase, step in logged_steps(workdir) if phase == "unlearn"]
    assert logged == list(range(int(saved))), "metrics end where the checkpoint is"
    expected = call(*SMALL, tmp_path / "whole", *words[5:])
    done = call(*words)
    assert f"continuing from step {saved} of 400" in done.stderr
    assert_same_bits(params_of(workdir), params_of(tmp_path / "whole"))
    assert expected.returncode == done.returncode == 0


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_skipped(uninterrupted, tmp_path):
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
    assert_same_run(workdir, uninterrupted)


@pytest.mark.slow
def test_the_number_of_devices_may_change(uninterrupted, tmp_path):
    """Eight devices, then one, then four: every step is logged once and the losses agree."""
    workdir = tmp_path / "run"
    words = (*SMALL, workdir, "--config.runtime.save_every=2", FEW_FIGURES)
    for devices, marker in ((8, '"phase": "unlearn", "step": 2'), (1, '"step": 4')):
        arguments, env = command(
            *words,
            "--config.runtime.fsdp=-1",
            devices=devices,
        )
        process = subprocess.Popen(arguments, env=env, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            wait_for(workdir / "metrics.jsonl", marker, process)
        finally:
            process.kill()
            process.wait()
    done = call(*words, "--config.runtime.fsdp=2", devices=4)
    assert done.returncode == 0, done.stderr
    losses = [
        {(r["phase"], r["step"]): r["loss"] for r in files.read_jsonl(w / "metrics.jsonl")}
        for w in (workdir, uninterrupted)
    ]
    assert list(losses[0]) == ALL_STEPS
    for key, loss in losses[0].items():
        assert abs(loss - losses[1][key]) < 1e-5, key


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def call_pair(*words, second=()):
    """Starts two processes that form one run; returns (exit code, stdout, stderr) of each.

    words: arguments of both; {} is replaced by HOST:PORT,2,RANK. second: more arguments of rank 1.
    """
    processes, address = [], f"localhost:{free_port()}"
    for rank, more in enumerate(((), second)):
        arguments = (str(word).format(f"{address},2,{rank}") for word in words)
        arguments, env = command(*arguments, *more)
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(subprocess.Popen(arguments, env=env, cwd=ROOT, **pipes))
    ended = []
    for process in processes:
        try:
            output = process.communicate(timeout=300)
        finally:
            process.kill()
        ended.append((process.returncode, *output))
    return ended


@pytest.mark.slow
def test_all_processes_stop_if_their_configs_differ(tmp_path):
    words = (*SMALL, tmp_path / "two", "--distributed={}")
    (code, _, log), (other_code, _, other_log) = call_pair(*words, second=("--config.seed=1",))
    assert code == other_code == 2, (log, other_log)
    assert "Processes [1] run another config" in log
    assert "Processes [0] run another" in other_log
    assert not (tmp_path / "two" / "config.json").exists()


@pytest.mark.slow
def test_two_processes_are_one_run(uninterrupted, tmp_path):
    """Each process reads its own images and has one device; the losses are those of one process.

    Before, one of them gets configs with errors, which both must refuse (see pair.py).
    """
    (code, output, log), (other_code, other_output, other_log) = call_pair(
        "tests.pair", "{}", tmp_path / "two", once("retrained", retrain)
    )
    assert code == other_code == 0, (log, other_log)
    assert output.count("Processes [1] cannot begin") == 2, output
    assert "unlearn.batch_size refused: unlearn.batch_size=7 cannot be" in other_output
    assert "runtime.keep refused: runtime.keep is at least 1" in other_output
    assert logged_steps(tmp_path / "two") == ALL_STEPS
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
