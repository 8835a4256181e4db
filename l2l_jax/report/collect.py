"""Reads a workdir into a record; everything on a page comes from these files."""

import dataclasses
import hashlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from l2l_jax.lib import config_dicts, files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.text import one_line, printable
from l2l_jax.report import checks
from l2l_jax.report.form import cleaned
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)

MAX_PICTURE_PIXELS = 1 << 26
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
    images: dict[str, bytes]  # PNG files by name, such as "center_forget"; those that may be shown
    answers: dict[str, Any] | None = None  # to each image of a list to forget

    @property
    def headline(self) -> dict[str, Any]:
        """The figures of the first task: {variant: {side: {figure: value}}}."""
        return self.results["tasks"][self.results["task"]]

    @property
    def variants(self) -> list[str]:
        """The evaluated variants, such as ["original", "unlearned", "retrained", "retrained_2"]."""
        first = [v for v in ("original", "unlearned") if v in self.headline]
        return first + [v for v in self.headline if v not in first]

    @property
    def sides(self) -> list[str]:
        """The evaluated sides of tables: "retain", "forget", or both."""
        return [side for side in self.results["counts"] if side in ("retain", "forget")]

    @property
    def seed(self) -> int:
        """The seed of the config."""
        return self.config["seed"]

    @property
    def unlearning(self) -> list[str]:
        """The phases that unlearn; none of a run that only trains."""
        phases = self.config["phases"] if "unlearned" in self.headline else []
        return [phase for phase in phases if self.config[phase]["method"] != "pretrain"]

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
    config = cleaned(workdir.config, workdir.read_config())
    checks.check_config(workdir.config, config)
    versions = cleaned(workdir.versions, workdir.read_versions())
    checks.check_versions(workdir.versions, versions)
    results = cleaned(workdir.results, workdir.read_results())
    checks.check_results(workdir.results, results, config["phases"])
    record = Record(
        name=one_line(folder.name),
        config=config,
        versions=versions,
        results=results,
        metrics=_metrics(workdir),
        splits=_splits(workdir, results),
        tsne=_tsne(workdir),
        images=_pictures(workdir),
        answers=_answers(workdir, config),
    )
    _check_digests(workdir, record)
    if config_dicts.withholds_forgotten(config):
        shown = {k: png for k, png in record.images.items() if not k.endswith("_forget")}
        record = dataclasses.replace(record, images=shown)
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


def _metrics(workdir: Workdir) -> list[dict[str, Any]]:
    """The checked lines of metrics.jsonl."""
    records = cleaned(workdir.metrics, list(workdir.read_metrics()))
    for line, record in enumerate(records, 1):
        checks.check_metric(workdir.metrics, record, line)
    return records


def _splits(workdir: Workdir, results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{name: split}, checked; those of all evaluated sides are there."""
    splits = {}
    for name, split in workdir.read_splits().items():
        splits[printable(name)] = cleaned(workdir.split(name), split)
        checks.check_split(workdir.split(name), splits[printable(name)])
    for side in results["counts"]:
        name = side.removesuffix("_train") if side.endswith("_train") else f"{side}_eval"
        if name not in splits:
            raise ConfigError(
                f"{workdir.results} has figures of the side {side!r}, and the split "
                f"{workdir.split(f'{side}_eval')} is missing."
            )
    return splits


def _tsne(workdir: Workdir) -> dict[str, Any] | None:
    """The checked record tsne.json, or None."""
    path = workdir.record("tsne")
    if (record := workdir.read_record("tsne")) is None:
        return None
    record = cleaned(path, record)
    checks.check_tsne(path, record)
    return record


def _answers(workdir: Workdir, config: dict[str, Any]) -> dict[str, Any] | None:
    """The checked answers.json of a run that forgot a list, or None."""
    answers = workdir.read_answers()
    if not answers or not config_dicts.forgets_a_list(config):
        return None
    answers = cleaned(workdir.answers, answers)
    checks.check_answers(workdir.answers, answers)
    return answers


def _pictures(workdir: Workdir) -> dict[str, bytes]:
    """{name: PNG file}. ConfigError for a file that is no PNG picture of moderate size."""
    pictures = {}
    for name, content in workdir.read_pictures().items():
        try:
            with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
                width, height = image.size
                if width * height > MAX_PICTURE_PIXELS:
                    raise ValueError(f"it has {width:,} x {height:,} pixels")
                image.load()
        except Exception as error:  # Pillow raises many types on damaged files
            raise ConfigError(
                f"{workdir.picture(name)} is not shown: {one_line(str(error))}. Remove it and "
                "evaluate the run again."
            ) from error
        pictures[printable(name)] = content
    return pictures


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
            left_out[folder] = one_line(str(error))
    if not runs:
        reasons = list(left_out.items())[:MAX_LISTED]
        listed = "".join(f"\n  {folder}: {reason}" for folder, reason in reasons)
        raise ConfigError(f"None of these holds an evaluated run:{listed}")
    names = [folder.name for folder in runs]
    for folder, run in runs.items():
        if names.count(run.name) > 1:
            runs[folder] = dataclasses.replace(run, name=one_line(str(folder)))
    return runs, left_out
