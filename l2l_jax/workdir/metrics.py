"""Writes metrics: always to metrics.jsonl, and through CLU's writers to TensorBoard and the log.

The only module that may load TensorFlow, which CLU's writers need. If it is not installed, only
metrics.jsonl is written and the log says so.
"""

import contextlib
import logging
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
        self._file = self._clu = None
        if not hosts.is_main():
            return
        records = workdir.read_metrics()
        kept = [r for r in records if r["phase"] != phase or r["step"] < start]
        self.seconds = max((r["seconds"] for r in kept if r["phase"] == phase), default=0.0)
        with self._as_not_saved():
            with files.atomic_write(self._path) as file:
                file.writelines(map(files.json_line, kept))
            self._file = self._path.open("ab")
        self._clu = _clu_writer(workdir.tensorboard(phase)) if tensorboard else None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line and flushes it. NotSaved if that fails, e.g. on a full disk."""
        if self._file:
            with self._as_not_saved():
                record = {"phase": self.phase, "step": step, **values}
                self._file.write(files.json_line(record))
                self._file.flush()
            if self._clu:
                try:
                    self._clu.write_scalars(step, values)
                except Exception as error:  # of many types, raised for an earlier step
                    self._clu = None
                    _log_no_tensorboard(error)

    def close(self) -> None:
        """Closes the writers; a failure is only logged."""
        for writer in (self._file, self._clu):
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


def _clu_writer(folder: Path) -> Any | None:
    """CLU's writer; None if a package it needs is not installed, or if it cannot write."""
    quiet.set_levels()
    try:
        with quiet.without_start_up_lines():
            from clu import metric_writers

            return metric_writers.create_default_writer(folder, asynchronous=True)
    except Exception as error:  # such as a full disk; TensorFlow raises its own types
        _log_no_tensorboard(error)
        return None


def _log_no_tensorboard(error: Exception) -> None:
    log.warning("TensorBoard files are not written (%s); metrics.jsonl is.", str(error)[:200])
