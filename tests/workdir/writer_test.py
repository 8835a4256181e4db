"""The file of metrics: what a continued run keeps, and what it does when TensorBoard fails."""

import logging

from l2l_jax.lib import files
from l2l_jax.workdir import metrics
from l2l_jax.workdir.layout import Workdir


def write(folder, steps, start=0):
    writer = metrics.Writer(folder, "unlearn", start, tensorboard=False)
    for step in steps:
        writer.scalars(step, {"loss": 1 / (step + 1), "seconds": 1.0 * step})
    writer.close()
    return writer


def steps(folder):
    return [record["step"] for record in Workdir(folder).read_metrics()]


def test_a_continued_run_repairs_the_file(tmp_path, caplog):
    write(tmp_path, range(6))
    path = Workdir(tmp_path).metrics
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], lines[1][:20] + b"\n", *lines[2:5], lines[5][:20]]))
    assert write(tmp_path, range(4, 8), start=4).seconds == 3.0
    assert "1 of 6 lines are damaged" not in caplog.text, "the last line is no damage"
    assert "2 of 6 lines are damaged and are left out, the first is line 2" in caplog.text
    caplog.clear()
    assert steps(tmp_path) == [0, 2, 3, 4, 5, 6, 7]
    assert not caplog.text


def test_tensorboard_that_fails_stops_no_training(tmp_path, monkeypatch, caplog):
    class Full:
        def write_scalars(self, step, values):
            raise RuntimeError(f"No space left on device at {step}")

    monkeypatch.setattr(metrics, "_event_writer", lambda _: Full())
    writer = metrics.Writer(tmp_path, "unlearn", 0, tensorboard=True)
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            writer.scalars(step, {"loss": 1.0})
    writer.close()
    assert steps(tmp_path) == [0, 1, 2]
    assert caplog.text.count("TensorBoard files are not written (No space left") == 1


def test_records_without_their_keys_are_left_out(tmp_path):
    path = Workdir(tmp_path).metrics
    path.write_bytes(files.json_line({"phase": "a", "step": 0}) + files.json_line({"a": 1}))
    assert steps(tmp_path) == [0]
