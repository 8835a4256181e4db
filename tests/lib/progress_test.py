"""Metrics and progress: every step is recorded once; rates and remaining time."""

import logging
import subprocess
import sys

import numpy as np
import pytest

from l2l_jax.lib import files, progress
from l2l_jax.workdir import metrics
from tests.helpers import ROOT


def test_a_continued_run_drops_the_records_of_steps_it_repeats(tmp_path):
    for phase in ("pretrain", "unlearn"):
        writer = metrics.Writer(tmp_path, phase, 0, tensorboard=False)
        for step in range(5):
            writer.scalars(step, {"loss": step / 2, "seconds": step * 1.5})
        writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "unlearn", "st')  # cut off by a kill
    writer = metrics.Writer(tmp_path, "unlearn", 3, tensorboard=False)
    assert writer.seconds == 3.0, "the seconds of the kept steps"
    writer.scalars(3, {"loss": 9.0, "seconds": 5.0})
    writer.close()
    records = list(files.read_jsonl(tmp_path / "metrics.jsonl"))
    steps = [(record["phase"], record["step"]) for record in records]
    assert steps == [("pretrain", i) for i in range(5)] + [("unlearn", i) for i in range(4)]
    assert records[-1]["loss"] == 9.0


def events(folder):
    """Returns [(step, tag, plugin, value)] of the event file in a folder."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    (path,) = folder.rglob("events*")
    return [
        (event.step, v.tag, v.metadata.plugin_data.plugin_name, make_ndarray(v.tensor))
        for event in EventFileLoader(str(path)).Load()
        for v in event.summary.value
    ]


def write_events(folder):
    writer = metrics.Writer(folder, "unlearn", 0, tensorboard=True)
    for step in range(2):
        writer.scalars(step, {"retain": 0.25 + step, "seconds": 1.0})
    writer.close()
    return type(writer._events)


@pytest.mark.slow
def test_without_tensorflow_the_events_are_the_same(tmp_path, monkeypatch):
    assert write_events(tmp_path / "with") is not metrics.EventFile
    monkeypatch.setitem(sys.modules, "clu", None)
    assert write_events(tmp_path / "without") is metrics.EventFile
    found = events(tmp_path / "without")
    assert sorted(map(str, found)) == sorted(map(str, events(tmp_path / "with")))
    assert found[2] == (1, "retain", "scalars", np.float32(1.25))


def test_without_any_writer_of_events_the_json_lines_remain(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "clu", None)
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    with caplog.at_level(logging.WARNING):
        writer = metrics.Writer(tmp_path, "unlearn", 0, tensorboard=True)
        writer.scalars(0, {"retain": 0.25, "seconds": 1.0})
    assert "metrics.jsonl is" in caplog.text
    writer.close()
    assert len(list(files.read_jsonl(tmp_path / "metrics.jsonl"))) == 1


def test_rates_and_remaining_time(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    watch = progress.Progress("unlearn", start=10, steps=110, examples=8, flops=2e9, spent=50.0)
    now[0] += 30  # compilation
    watch.compiled(10)
    assert watch.rates(10) == {}
    with watch.waiting():
        now[0] += 1
    now[0] += 4
    rates = watch.rates(20)
    assert rates["examples_per_second"] == pytest.approx(16)
    assert rates["data_wait"] == pytest.approx(0.2)
    assert rates["flops_per_second"] == pytest.approx(4e9)
    assert watch.seconds == pytest.approx(85)
    with caplog.at_level(logging.INFO):
        watch.report(20, {"loss": 0.123456, "retain": 1.0}, every=5)
        watch.report(21, {"loss": 0.1}, every=5)  # too soon
    (line,) = [record.message for record in caplog.records]
    for text in (
        "unlearn 21/110",
        "loss 0.1235",
        "16 images/s",
        "4 GFLOP/s",
        "20%",
        "0:00:44 left",
    ):
        assert text in line


@pytest.mark.slow
def test_heavy_packages_are_not_imported():
    """Only workdir/metrics.py may import TensorFlow, and only when it writes."""
    code = (
        "import sys, l2l_jax.main, l2l_jax.flags, l2l_jax.engine.run, l2l_jax.weights.__main__\n"
        "from l2l_jax.registry import find, names, FOLDERS\n"
        "[find(kind, name) for kind in FOLDERS for name in names(kind)]\n"
        "print([m for m in ('tensorflow', 'torch', 'clu', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
