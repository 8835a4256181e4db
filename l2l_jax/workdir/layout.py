"""The files of a workdir: every name once, and how each of the shared ones is read.

Needs no JAX, so that the report can use it.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The paths in the folder of one run."""

    folder: Path

    @property
    def config(self) -> Path:
        """The complete config, JSON."""
        return self.folder / "config.json"

    @property
    def versions(self) -> Path:
        """Code, packages and devices of every launch, JSON."""
        return self.folder / "versions.json"

    @property
    def original(self) -> Path:
        """Which weights the run began with, and their digest, JSON."""
        return self.folder / "original.json"

    @property
    def reference(self) -> Path:
        """Which retrained model the run is compared with, and its digest, JSON."""
        return self.folder / "reference.json"

    @property
    def splits(self) -> Path:
        """The folder of splits, one JSON file each."""
        return self.folder / "splits"

    @property
    def metrics(self) -> Path:
        """The metrics of every step of every phase, JSON lines."""
        return self.folder / "metrics.jsonl"

    @property
    def notes(self) -> Path:
        """What was measured about each phase: {phase: {name: value}}, JSON."""
        return self.folder / "phases.json"

    @property
    def results(self) -> Path:
        """All measured figures and where they come from, JSON."""
        return self.folder / "results.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "report.html"

    @property
    def images(self) -> Path:
        """The folder of PNG pictures."""
        return self.folder / "images"

    @property
    def profile(self) -> Path:
        """The folder of profiler traces."""
        return self.folder / "profile"

    @property
    def lock(self) -> Path:
        """Locked while a launch works in the folder."""
        return self.folder / ".lock"

    def checkpoints(self, phase: str) -> Path:
        """The folder of a phase's checkpoints."""
        return self.folder / "checkpoints" / phase

    def tensorboard(self, phase: str) -> Path:
        """The folder of a phase's TensorBoard files."""
        return self.folder / "tensorboard" / phase

    def picture(self, name: str) -> Path:
        """A PNG file, such as "center_forget"."""
        return self.images / f"{name}.png"

    def record(self, name: str) -> Path:
        """A JSON file that an evaluator keeps, such as "tsne"."""
        return self.folder / f"{name}.json"

    def read_config(self) -> dict[str, Any]:
        """The config as plain dicts. ConfigError if the folder holds no run."""
        if not self.config.is_file():
            near = [path.parent.name for path in self.folder.parent.glob("*/config.json")]
            raise ConfigError(
                f"{self.folder} holds no run (no config.json)."
                f"{did_you_mean(self.folder.name, near)} "
                f"Runs beside it: {', '.join(sorted(near)[:10]) or 'none'}."
            )
        return files.read_json(self.config)

    def read_versions(self) -> dict[str, Any]:
        """The first launch, with the later ones under "continued_with"; {} if there is none."""
        return files.read_json(self.versions) if self.versions.exists() else {}

    def read_results(self) -> dict[str, Any]:
        """The content of results.json. FileNotFoundError if nothing is evaluated yet."""
        return files.read_json(self.results)

    def read_metrics(self) -> Iterator[dict[str, Any]]:
        """The records {"phase", "step", "seconds", metric: value, ...}, in the order written."""
        return files.read_jsonl(self.metrics)

    def read_notes(self) -> dict[str, dict[str, Any]]:
        """{phase: {name: value}}; {} if nothing is noted."""
        return files.read_json(self.notes) if self.notes.exists() else {}

    def read_splits(self) -> dict[str, dict[str, Any]]:
        """{name: the split as JSON}, sorted by name; {} if there are none."""
        return {path.stem: files.read_json(path) for path in sorted(self.splits.glob("*.json"))}

    def read_record(self, name: str) -> Any | None:
        """What an evaluator kept under this name, or None."""
        path = self.record(name)
        return files.read_json(path) if path.exists() else None

    def read_pictures(self) -> dict[str, bytes]:
        """{name: PNG file}, sorted by name."""
        return {path.stem: path.read_bytes() for path in sorted(self.images.glob("*.png"))}
