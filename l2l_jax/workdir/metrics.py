"""Writes metrics: always to metrics.jsonl, and if wanted the event files of TensorBoard.

CLU's writers write the event files and the log. They need TensorFlow (the extra [tensorboard]), and
this is the only module that may load it. Without it, TensorBoard's own writer writes the same
events. If neither can write, the log says so, and metrics.jsonl is written.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from l2l_jax.lib import files, hosts, quiet
from l2l_jax.lib.errors import NotSaved, is_full, reason
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)


class Writer:
    """Writes the metrics of one phase of the workdir `folder`. Only the main process writes.

    start: the first step that will be written; records of this and later steps are removed.
    """

    def __init__(self, folder: Path, phase: str, start: int, tensorboard: bool):
        workdir = Workdir(folder)
        self.phase = phase
        self.seconds = 0.0  # spent on this phase by earlier launches
        self._path = workdir.metrics
        self._file = self._events = None
        self._event_folder = workdir.tensorboard(phase) if tensorboard else None
        if not hosts.is_main():
            return
        records = workdir.read_metrics()
        kept = [r for r in records if r["phase"] != phase or r["step"] < start]
        self.seconds = max((r["seconds"] for r in kept if r["phase"] == phase), default=0.0)
        with self._as_not_saved():
            with files.atomic_write(self._path) as file:
                file.writelines(map(files.json_line, kept))
            self._file = self._path.open("ab")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line and flushes it. NotSaved if that fails, e.g. on a full disk."""
        if self._file:
            with self._as_not_saved():
                record = {"phase": self.phase, "step": step, **values}
                self._file.write(files.json_line(record))
                self._file.flush()
            if self._event_folder:  # importing takes seconds, in which the first step runs
                self._events, self._event_folder = _event_writer(self._event_folder), None
            if self._events:
                try:
                    self._events.write_scalars(step, values)
                except Exception as error:  # of many types, raised for an earlier step
                    self._events = None
                    _log_no_tensorboard(error)

    def close(self) -> None:
        """Closes the writers; a failure is only logged."""
        for writer in (self._file, self._events):
            try:
                if writer:
                    writer.close()
            except Exception as error:  # TensorFlow raises its own types
                log.warning("the last metrics may be missing: %s", str(error)[:200])

    @contextlib.contextmanager
    def _as_not_saved(self) -> Iterator[None]:
        """Turns an OSError into NotSaved with advice."""
        try:
            yield
        except OSError as error:
            why = "the disk is full" if is_full(error) else reason(error)
            raise NotSaved(
                f"{self._path} could not be written: {why}. The checkpoints are intact; free "
                "some space and run the same command again."
            ) from error


class EventFile:
    """TensorBoard's own writer, with the two functions of CLU's that are used here."""

    def __init__(self, folder: Path):
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder))

    def write_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one event, with the summaries that tf.summary.scalar makes of the values."""
        from tensorboard.compat.proto import event_pb2
        from tensorboard.plugins.scalar import summary_v2

        messages: Any = event_pb2  # its classes are made when it is imported
        event = messages.Event(wall_time=time.time(), step=step)
        for name, value in values.items():
            event.summary.MergeFrom(summary_v2.scalar_pb(name, value))
        self._writer.add_event(event)

    def close(self) -> None:
        """Writes what is left, and closes the file."""
        self._writer.close()


def _event_writer(folder: Path) -> Any | None:
    """CLU's writer, or an EventFile if its packages are not installed; None if it cannot write."""
    quiet.set_levels()
    try:
        with quiet.without_start_up_lines():
            try:
                from clu import metric_writers
            except ImportError:
                return EventFile(folder)
            return metric_writers.create_default_writer(folder, asynchronous=True)
    except Exception as error:  # such as a full disk; TensorFlow raises its own types
        _log_no_tensorboard(error)
        return None


def _log_no_tensorboard(error: Exception) -> None:
    log.warning("TensorBoard files are not written (%s); metrics.jsonl is.", str(error)[:200])
