"""Where metrics go: metrics.jsonl always, CLU's writers (TensorBoard and the log) beside it.

The only place that may load TensorFlow, which CLU's writers need; where it is absent the JSON lines
are all there is, and the log says so once.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from l2l_jax.lib import files, hosts
from l2l_jax.lib.errors import NotSaved, is_full

log = logging.getLogger(__name__)


class Writer:
    """The metrics of one phase. Only the first process writes.

    On continuing from step N the records of later steps are dropped: they will be written again.
    """

    def __init__(self, workdir: Path, phase: str, start: int, tensorboard: bool):
        self.phase = phase
        self.seconds = 0.0  # spent on this phase by earlier launches
        self._file = self._clu = None
        if not hosts.is_main():
            return
        self._path = workdir / "metrics.jsonl"
        records = files.read_jsonl(self._path)
        kept = [r for r in records if r["phase"] != phase or r["step"] < start]
        self.seconds = max((r["seconds"] for r in kept if r["phase"] == phase), default=0.0)
        with self._explained():
            with files.replacing(self._path) as file:
                file.writelines(json.dumps(record).encode() + b"\n" for record in kept)
            self._file = self._path.open("a", encoding="utf-8")
        self._clu = _clu_writer(workdir / "tensorboard" / phase) if tensorboard else None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line, handed to the system when this returns. NotSaved on a full disk."""
        if self._file:
            with self._explained():
                self._file.write(json.dumps({"phase": self.phase, "step": step, **values}) + "\n")
                self._file.flush()
            if self._clu:
                self._clu.write_scalars(step, values)

    def close(self) -> None:
        """Closes what is open; a failure is only logged."""
        for open_one in (self._file, self._clu):
            try:
                if open_one:
                    open_one.close()
            except OSError as error:
                log.warning("the last metrics may be missing: %s", error)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = "the disk is full" if is_full(error) else str(error)
            raise NotSaved(
                f"{self._path} could not be written: {reason}. The checkpoints are intact; make "
                "room and run the same command again."
            ) from error


def _clu_writer(folder: Path) -> Any | None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets at length
    try:
        from clu import metric_writers
    except ImportError as error:
        log.warning("TensorBoard files are not written (%s); metrics.jsonl is.", error)
        return None
    return metric_writers.create_default_writer(folder, asynchronous=True)
