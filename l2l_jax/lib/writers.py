"""Where metrics go: metrics.jsonl always, CLU's writers (TensorBoard and the log) beside it.

The only place that may load TensorFlow, which CLU's writers need; where it is absent the JSON lines
are all there is, and the log says so once.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from l2l_jax.lib import files

log = logging.getLogger(__name__)


class Writer:
    """The metrics of one phase. Only process 0 writes.

    On continuing from step N the records of later steps are dropped: they will be written again.
    """

    def __init__(self, workdir: Path, phase: str, start: int, tensorboard: bool):
        self.phase = phase
        self.seconds = 0.0  # spent on this phase by earlier launches
        self._file = self._clu = None
        if jax.process_index() != 0:
            return
        path = workdir / "metrics.jsonl"
        kept = [r for r in files.read_jsonl(path) if r["phase"] != phase or r["step"] < start]
        self.seconds = max((r["seconds"] for r in kept if r["phase"] == phase), default=0.0)
        with files.replacing(path) as file:
            file.writelines(json.dumps(record).encode() + b"\n" for record in kept)
        self._file = path.open("a", encoding="utf-8")
        self._clu = _clu_writer(workdir / "tensorboard" / phase) if tensorboard else None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line, on disk when this returns."""
        if self._file:
            record = {"phase": self.phase, "step": step, **values}
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            if self._clu:
                self._clu.write_scalars(step, values)

    def close(self) -> None:
        if self._file:
            self._file.close()
        if self._clu:
            self._clu.close()


def _clu_writer(folder: Path) -> Any | None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets at length
    try:
        from clu import metric_writers
    except ImportError as error:
        log.warning("TensorBoard files are not written (%s); metrics.jsonl is.", error)
        return None
    return metric_writers.create_default_writer(folder, asynchronous=True)
