"""The files of a workdir: every file name once, with functions that read and write its JSON.

Imports no JAX, so that the report can use it. Where several processes run, the caller lets only the
main process write.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from l2l_jax.lib import bounded, files
from l2l_jax.lib.errors import ConfigError, Damaged, did_you_mean, reason

UNCHANGED = "Restore it from a copy, or remove it, if {} is still the one that the run began with."

MAX_PICTURE_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The files in the folder of one run."""

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
        """The weights file that the run starts from and its digest, JSON."""
        return self.folder / "original.json"

    @property
    def reference(self) -> Path:
        """The workdir of the retrained model that the run is compared with and its digest, JSON."""
        return self.folder / "reference.json"

    @property
    def splits(self) -> Path:
        """The folder of splits, one JSON file for each."""
        return self.folder / "splits"

    @property
    def metrics(self) -> Path:
        """The metrics of every step of every phase, JSON lines."""
        return self.folder / "metrics.jsonl"

    @property
    def notes(self) -> Path:
        """Values measured before and after each phase: {phase: {name: value}}, JSON."""
        return self.folder / "phases.json"

    @property
    def results(self) -> Path:
        """All figures of the evaluation and what they were computed from, JSON."""
        return self.folder / "results.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
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
        """The file that a process locks while it works in the folder."""
        return self.folder / ".lock"

    @property
    def record_folder(self) -> Path:
        """The folder that can be given to others: what was asked, done and found."""
        return self.folder / "record"

    @property
    def answers(self) -> Path:
        """What became of each image of a list to forget, with its name, JSON."""
        return self.folder / "answers.json"

    @property
    def answers_table(self) -> Path:
        """The same as a table with names, CSV: for whoever wrote the list, and nobody else."""
        return self.folder / "answers.csv"

    @property
    def salt(self) -> Path:
        """The secret that the digests of names in the record depend on, JSON."""
        return self.folder / "salt.json"

    def checkpoints(self, phase: str) -> Path:
        """The folder of a phase's checkpoints."""
        return self.folder / "checkpoints" / phase

    def sums(self, phase: str) -> Path:
        """The sums over all images from which a phase is solved; see engine/fitting.py."""
        return self.folder / "sums" / f"{phase}.npz"

    def tensorboard(self, phase: str) -> Path:
        """The folder of a phase's TensorBoard files."""
        return self.folder / "tensorboard" / phase

    def split(self, name: str) -> Path:
        """The JSON file of a split, such as "forget_eval"."""
        return self.splits / f"{name}.json"

    def picture(self, name: str) -> Path:
        """A PNG file, such as "center_forget"."""
        return self.images / f"{name}.png"

    def record(self, name: str) -> Path:
        """The JSON file of a record that an evaluator keeps, such as "tsne"."""
        return self.folder / f"{name}.json"

    def audit(self, name: str, variant: str) -> Path:
        """What an audit found of a variant, JSON with a digest."""
        return self.folder / "audits" / f"{name}_{variant}.json"

    def check_kinds(self) -> None:
        """Damaged if a folder has the name of one of the files, or a file that of a folder.

        ConfigError if the path cannot be used, such as one that is too long.
        """
        try:
            self._check_kinds()
        except OSError as error:
            raise ConfigError(
                f"{self.folder} cannot be a workdir: {reason(error)}. Choose another one."
            ) from error

    def _check_kinds(self) -> None:
        for path in (self.config, self.versions, self.original, self.reference, self.metrics,
                     self.notes, self.results, self.report, self.lock):  # fmt: skip
            if path.is_dir():
                raise Damaged(
                    f"{path} is a folder; a workdir has a file of this name. Move it away."
                )
        for path in (self.folder, self.splits, self.images, self.profile, self.checkpoints(""),
                     self.tensorboard("")):  # fmt: skip
            if path.exists() and not path.is_dir():
                raise Damaged(f"{path} is a file; a folder of this name is needed. Move it away.")

    def read_config(self) -> dict[str, Any]:
        """The config as plain dicts. ConfigError if the folder holds no run."""
        if not self.config.is_file():
            near = [path.parent.name for path in self.folder.parent.glob("*/config.json")]
            raise ConfigError(
                f"{self.folder} holds no run (no config.json)."
                f"{did_you_mean(self.folder.name, near)} "
                f"Runs beside it: {', '.join(sorted(near)[:10]) or 'none'}."
            )
        return files.read_object(
            self.config, "Restore it from a copy, or start again in another workdir."
        )

    def read_versions(self) -> dict[str, Any]:
        """The first launch, with later ones under "continued_with"; {} if there is no file."""
        return _read(
            self.versions, "Restore it from a copy, or remove it: its history is lost then."
        )

    def read_original(self) -> dict[str, Any]:
        """{"weights", "digest", ...} of the original; {} if the run has no weights file."""
        return _read(self.original, UNCHANGED.format("the weights file"))

    def read_reference(self) -> dict[str, Any]:
        """{"weights", "digest"} of the retrained model; {} if the run has none."""
        return _read(self.reference, UNCHANGED.format("the retrained model"))

    def read_results(self) -> dict[str, Any]:
        """The content of results.json. FileNotFoundError if the run is not evaluated yet."""
        return files.read_object(self.results, self._evaluate_again)

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Writes results.json, atomically."""
        files.write_json(self.results, dict(results))

    def read_metrics(self) -> Iterator[dict[str, Any]]:
        """The records {"phase", "step", "seconds", metric: value, ...}, in the order written."""
        records = files.read_jsonl(self.metrics)
        return (record for record in records if {"phase", "step"} <= record.keys())

    def read_notes(self) -> dict[str, dict[str, Any]]:
        """{phase: {name: value}}; {} if there is no file."""
        return _read(self.notes, "Remove it: what the run still needs is measured again.")

    def note(self, phase: str, **values: Any) -> None:
        """Adds values to the notes of a phase; a value of the same name is replaced."""
        notes = self.read_notes()
        files.write_json(self.notes, notes | {phase: notes.get(phase, {}) | values})

    def read_splits(self) -> dict[str, dict[str, Any]]:
        """{name: the split as JSON}, sorted by name; {} if there are none.

        Damaged if a file cannot be read, or one that another file names is missing.
        """
        remedy = "Continue the run: it is then made again, if its images are the same."
        paths = sorted(self.splits.glob("*.json"))
        splits = {path.stem: files.read_object(path, remedy) for path in paths}
        beside = (record.get("beside") for record in splits.values())
        named = {name for names in beside if isinstance(names, dict) for name in names}
        if missing := sorted(named - splits.keys()):
            raise Damaged(f"{self.split(missing[0])} is missing. {remedy}")
        return splits

    def read_answers(self) -> dict[str, Any]:
        """The answers to a list of images to forget; {} if there are none."""
        return _read(self.answers, self._evaluate_again)

    def read_record(self, name: str) -> Any | None:
        """The record that an evaluator kept under this name, or None."""
        try:
            return files.read_json(self.record(name), self._evaluate_again)
        except FileNotFoundError:
            return None

    def write_record(self, name: str, record: Any) -> None:
        """Writes the record of an evaluator, atomically."""
        files.write_json(self.record(name), record)

    def read_pictures(self) -> dict[str, bytes]:
        """{name: content of the PNG file}, sorted by name.

        Damaged for a picture that is no regular file, or a link to a file outside of the folder of
        the run, which could otherwise end up on a page for others.
        """
        pictures, root = {}, self.folder.resolve()
        for path in sorted(self.images.glob("*.png")):
            if not path.resolve().is_relative_to(root):
                raise Damaged(f"{path} is a link to a file outside of {self.folder}; remove it.")
            pictures[path.stem] = bounded.read(path, MAX_PICTURE_BYTES)
        return pictures

    @property
    def _evaluate_again(self) -> str:
        return f"'python -m l2l_jax.evaluate --workdir {self.folder}' makes it again."


def _read(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in a file; {} if there is no file."""
    try:
        return files.read_object(path, remedy)
    except FileNotFoundError:
        return {}
