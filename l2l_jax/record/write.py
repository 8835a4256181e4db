"""Writes the record of a finished run into the folder `record` of its workdir."""

import json
import shutil
from pathlib import Path
from typing import Any

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.record import answers, content, manifest
from l2l_jax.record.card import card
from l2l_jax.record.limits import limits
from l2l_jax.report import page
from l2l_jax.workdir.layout import Workdir

PAGE = "report.html"
ANSWERS = "answers.csv"


def write(folder: Path) -> Path | None:
    """Writes the record of a run, and returns its folder; None if the run unlearns nothing.

    An earlier record, and its signature, are replaced. ConfigError if the run is not evaluated.
    """
    workdir = Workdir(folder)
    if not workdir.results.is_file() or not workdir.report.is_file():
        raise ConfigError(
            f"{folder} has no figures and page yet: run its command, or 'python -m "
            f"l2l_jax.evaluate --workdir {folder}'."
        )
    made = documents(workdir)
    if made is None:
        return None
    target = workdir.record_folder
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name, text in made.items():
        with files.atomic_write(target / name) as file:
            file.write(text.encode())
    shutil.copyfile(workdir.report, target / PAGE)
    manifest.write(target)
    return target


def write_with_page(folder: Path) -> Path:
    """Writes the page of an evaluated run, and its record; returns the page."""
    made = page.write(folder)
    write(folder)
    return made


def documents(workdir: Workdir) -> dict[str, str] | None:
    """{file: its text} of all that is made from the workdir's JSON; None without unlearning."""
    results = workdir.read_results()
    if "unlearned" not in results["tasks"][results["task"]]:
        return None
    salt = content.Salt(workdir)
    request = content.request(workdir, salt)
    process = content.process(workdir, salt)
    findings = content.findings(workdir, salt)
    made = {
        "request.json": as_text(request),
        "process.json": as_text(process),
        "findings.json": as_text(findings),
        "limits.md": limits(findings),
        "model_card.md": card(request, process, findings),
    }
    if rows := content.answered(workdir):
        made[ANSWERS] = answers.table(rows, names=False)
    return made


def as_text(value: Any) -> str:
    """JSON as a record holds it."""
    return json.dumps(files.as_json(value), indent=1, ensure_ascii=False) + "\n"
