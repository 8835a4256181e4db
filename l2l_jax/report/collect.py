"""Reads a workdir into a record; everything on a page comes from these files."""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)

MAX_LISTED = 10  # workdirs that an error names


@dataclasses.dataclass(frozen=True)
class Record:
    """The files of an evaluated run."""

    name: str
    config: dict[str, Any]
    versions: dict[str, Any]
    results: dict[str, Any]
    metrics: list[dict[str, Any]]
    splits: dict[str, dict[str, Any]]
    tsne: dict[str, Any] | None
    images: dict[str, bytes]  # PNG files by name, such as "center_forget"

    @property
    def variants(self) -> list[str]:
        """The evaluated variants, such as ["original", "unlearned", "retrained", "retrained_2"]."""
        task = self.results["tasks"][self.results["task"]]
        first = [v for v in ("original", "unlearned") if v in task]
        return first + [v for v in task if v not in first]

    @property
    def sides(self) -> list[str]:
        """The evaluated sides of tables: "retain", "forget", or both."""
        return [side for side in self.results["counts"] if side in ("retain", "forget")]

    @property
    def seed(self) -> int:
        """The seed of the config."""
        return self.config["seed"]

    @property
    def unfinished(self) -> dict[str, tuple[int, int]]:
        """{phase: (steps done, steps planned)} of phases that were interrupted.

        A phase that ended early because its stopping criterion was met is finished.
        """
        ended, steps = self.results["ended"], self.results["steps"]
        return {p: (n, total) for p, (n, total) in steps.items() if n < total and p not in ended}


def collect(folder: Path) -> Record:
    """Reads a workdir. ConfigError if it holds no evaluated run."""
    workdir = Workdir(folder)
    workdir.check_kinds()
    if missing := _missing_files(workdir):
        raise ConfigError(
            f"{folder} holds no evaluated run: {missing}. Finish it with "
            "'python -m l2l_jax.main', or evaluate its last checkpoint with "
            f"'python -m l2l_jax.evaluate --workdir {folder}'."
        )
    record = Record(
        name=folder.name,
        config=workdir.read_config(),
        versions=workdir.read_versions(),
        results=workdir.read_results(),
        metrics=list(workdir.read_metrics()),
        splits=workdir.read_splits(),
        tsne=workdir.read_record("tsne"),
        images=workdir.read_pictures(),
    )
    _check_digests(workdir, record)
    for phase, (done, _) in record.results["steps"].items():
        count = sum(each["phase"] == phase for each in record.metrics)
        if count < done:
            log.warning(
                "%s has records of %d of the %d steps of %s; its curves are incomplete",
                *(workdir.metrics, count, done, phase),
            )
    return record


def _check_digests(workdir: Workdir, record: Record) -> None:
    """ConfigError if a split, picture or record is not the one that the results belong to."""
    digests, again = (
        record.results["digests"],
        f"python -m l2l_jax.evaluate --workdir {workdir.folder}",
    )
    now = {
        "splits": {name: split["digest"] for name, split in record.splits.items()},
        "pictures": {n: hashlib.sha256(data).hexdigest() for n, data in record.images.items()},
        "records": {
            name: files.sha256(workdir.record(name))
            for name in digests.get("records", {})
            if workdir.record(name).is_file()
        },
    }
    path_of = {
        "splits": workdir.split, "pictures": workdir.picture, "records": workdir.record
    }  # fmt: skip
    for kind, present in now.items():
        for name, digest in digests.get(kind, {}).items():
            if present.get(name) != digest:
                how = "is damaged or was changed" if name in present else "is missing"
                raise ConfigError(
                    f"{path_of[kind](name)} {how}: it is not what {workdir.results.name} was made "
                    f"with. '{again}' makes both again."
                )


def _missing_files(workdir: Workdir) -> str:
    """Which files are missing, as text; "" if the workdir holds an evaluated run."""
    needed = (workdir.config, workdir.versions, workdir.results)
    missing = [path.name for path in needed if not path.is_file()]
    return f"{', '.join(missing)} missing" if missing else ""


def collect_all(folders: Sequence[Path]) -> tuple[dict[Path, Record], dict[Path, str]]:
    """({workdir: run}, {argument: why it is left out}); every run has another name.

    ConfigError if none of them holds an evaluated run.
    """
    runs, left_out = {}, {}
    for folder in dict.fromkeys(folders):
        try:
            if folder.is_file():
                raise ConfigError("a file, not the folder of a run")
            if not folder.exists():
                raise ConfigError("there is no such folder")
            if missing := _missing_files(Workdir(folder)):
                raise ConfigError(missing)
            runs[folder] = collect(folder)
        except (OSError, ValueError) as error:  # damaged JSON is a ValueError, too
            left_out[folder] = str(error)
    if not runs:
        reasons = list(left_out.items())[:MAX_LISTED]
        listed = "".join(f"\n  {folder}: {reason}" for folder, reason in reasons)
        raise ConfigError(f"None of these holds an evaluated run:{listed}")
    names = [folder.name for folder in runs]
    for folder, run in runs.items():
        if names.count(run.name) > 1:
            runs[folder] = dataclasses.replace(run, name=str(folder))
    return runs, left_out
