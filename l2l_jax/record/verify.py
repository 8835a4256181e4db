"""Checks a record, offline: its files, its signature, its figures, and the weights at hand."""

import dataclasses
import html
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from l2l_jax.lib import bounded
from l2l_jax.lib.errors import ConfigError, Damaged
from l2l_jax.record import answers, manifest, signing
from l2l_jax.record.card import card
from l2l_jax.record.limits import limits
from l2l_jax.record.write import ANSWERS, PAGE, documents
from l2l_jax.report import page
from l2l_jax.workdir.layout import Workdir


@dataclasses.dataclass(frozen=True)
class Verified:
    """What was found: problems, and what was checked without one."""

    problems: list[str]
    checked: list[str]

    @property
    def intact(self) -> bool:
        return not self.problems


def verify(
    folder: Path, signer: Path | signing.Identity | None = None, weights: Path | None = None
) -> Verified:
    """Checks a record, or that of a workdir.

    signer: a public key, or who signed without one; with None nobody knows who made the record.
    weights: a weights file that should be the recorded one. ConfigError if there is no record,
    Damaged if it cannot be read.
    """
    folder = folder if (folder / manifest.NAME).is_file() else Workdir(folder).record_folder
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} holds no record. A run that unlearns writes one at its end; "
            "'python -m l2l_jax.record write WORKDIR' writes it again."
        )
    problems, checked = list(manifest.differences(folder)), []
    if not problems:
        checked.append("all files are those of the manifest")
        problems += _differences_inside(folder)
        checked += [] if problems else ["the figures of all files agree"]
    if signer:
        try:
            signing.check(folder, signer)
            key = isinstance(signer, Path)
            checked.append(f"signed by {'the owner of ' if key else ''}{signer}")
        except Damaged as error:
            problems.append(str(error))
    else:
        checked.append("the signer is unknown: no key was given")
    if weights:
        problems += list(_other_weights(folder, weights))
        checked += [] if problems else [f"{weights} are the recorded weights"]
    workdir = Workdir(folder.parent)
    if not problems and workdir.record_folder == folder and workdir.results.is_file():
        problems += list(_differences_from(workdir))
        checked += [] if problems else ["it is the record of the workdir around it"]
    return Verified(problems, checked)


def findings(folder: Path) -> dict[str, Any]:
    """The content of findings.json of a record. Damaged if it cannot be read."""
    return _read(folder, "findings.json")


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(bounded.read(folder / name, manifest.MAX_BYTES))
    except (OSError, ValueError) as error:
        raise Damaged(f"{folder / name} cannot be read: {error}. {manifest.REMEDY}") from error
    if not isinstance(value, dict):
        raise Damaged(f"{folder / name} holds no JSON object. {manifest.REMEDY}")
    return value


def _differences_inside(folder: Path) -> Iterator[str]:
    """Documents that do not follow from request.json, process.json and findings.json."""
    request, process, findings = (
        _read(folder, f"{name}.json") for name in ("request", "process", "findings")
    )
    try:
        made = {"limits.md": limits(findings), "model_card.md": card(request, process, findings)}
        missing = list(_missing_figures((folder / PAGE).read_text(encoding="utf-8"), findings))
        counted = answers.summary(_answered(folder)) if "answers" in findings else None
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        yield f"it is not in the form of a record ({type(error).__name__}: {error})"
        return
    for name, text in made.items():
        if not (folder / name).is_file() or (folder / name).read_bytes() != text.encode():
            yield f"{name} does not follow from the figures in findings.json"
    if counted != findings.get("answers"):
        yield f"{ANSWERS} does not agree with findings.json"
    if not page.is_intact(folder / PAGE):
        yield f"{PAGE} is damaged or was edited"
    else:
        yield from missing


def _answered(folder: Path) -> list[dict[str, Any]]:
    return answers.parsed((folder / ANSWERS).read_text(encoding="utf-8"))


def _missing_figures(text: str, findings: Mapping[str, Any]) -> Iterator[str]:
    """Figures of findings.json that are not on the page, rounded as it rounds them."""
    shown = {name: f for name, f in findings["figures"].items() if html.escape(f["title"]) in text}
    for task, variants in findings["tasks"].items():
        for variant, sides in variants.items():
            for side, values in sides.items():
                for name, figure in shown.items():
                    value = values.get(name)
                    if value is not None and f"{value:.{figure['digits']}f}" not in text:
                        yield (
                            f"{PAGE} does not show {figure['title']} of {task}, {variant}, {side} "
                            "as it is in findings.json"
                        )


def _other_weights(folder: Path, weights: Path) -> Iterator[str]:
    """Whether the weights at hand are not those of the record."""
    from l2l_jax.weights import safetensors  # imports JAX

    recorded, found = _read(folder, "process.json")["weights"], safetensors.load(weights).digest
    if found != recorded.get("unlearned"):
        which = " (it is the original)" if found == recorded.get("original") else ""
        yield f"{weights} has the digest {found}{which}, not {recorded.get('unlearned')}"


def _differences_from(workdir: Workdir) -> Iterator[str]:
    """Files of a record that are not what its workdir gives now."""
    for name, text in (documents(workdir) or {}).items():
        if (workdir.record_folder / name).read_text(encoding="utf-8") != text:
            yield f"{name} is not what the workdir around it gives; it has changed since"
    made = page.text_of(workdir.folder)
    if (workdir.record_folder / PAGE).read_text(encoding="utf-8") != made:
        yield f"{PAGE} is not the page that the workdir around it gives"
