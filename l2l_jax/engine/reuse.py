"""Phases that another workdir has done already, and that would be exactly the same here.

The runs of a grid often begin alike: one pretrained original for all methods, one search for the
boundaries for all points between them. With config.runtime.begin_from=WORKDIR such phases at the
beginning are taken over in place of being done again. It is a saving, never a result: the run ends
at the bits at which it would have ended alone, so whatever could make a difference is compared,
and at the first difference no further phase is taken over.
"""

import itertools
import json
import logging
import os
import reprlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2l_jax.engine.experiment import Experiment
from l2l_jax.lib import config_dicts, files, hosts, trees
from l2l_jax.lib.errors import ConfigError, NotSaved
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)

MADE_BY = ("code", "packages", "devices", "processes")  # of versions.json: all that moves a bit
MAKING = ".{}.taking-over"  # a phase's checkpoints until all of them are here
IGNORED_FILES = shutil.ignore_patterns(".*", "damaged-*", "*.orbax-checkpoint-tmp*")


def reuse_phases(experiment: Experiment) -> list[str]:
    """Brings the phases of config.runtime.begin_from here; the names of those that were brought.

    Called on every process once the workdir is claimed; the first one does it, the others wait.
    ConfigError if there is no run to begin from, NotSaved if the disk does not take it.
    """
    taken: list[str] = []
    with hosts.fail_together():
        if hosts.is_main():
            _remove_partial(experiment)
            if begin_from := experiment.config["runtime"]["begin_from"]:
                taken = _reuse_phases(experiment, Path(begin_from).expanduser())
    return taken


def _reuse_phases(experiment: Experiment, source: Path) -> list[str]:
    """On the first process: phase after phase until one of them cannot be taken over."""
    here, config = experiment.workdir, files.as_json(experiment.config)
    there = Workdir(source).read_config()
    if source.resolve() == here.resolve():
        raise ConfigError(f"runtime.begin_from={source} is this workdir itself; name another one.")
    taken, reason = [], "all phases are here already"
    for phase in config["phases"]:
        steps = config[phase]["steps"]
        if done(here, phase, steps):
            continue
        reason = (
            _begun(here, phase)
            or difference(there, config, phase)
            or _provenance_difference(source, here)
            or _unfinished(source, phase, steps)
        )
        if reason:
            break
        try:
            _link_phase(source, here, phase)
        except OSError as error:
            raise NotSaved(
                f"{phase} could not be reused from {source}: {error}. Nothing was lost; make "
                "room, or leave runtime.begin_from empty to do it here."
            ) from error
        taken.append(phase)
    if taken:
        log.info("%s: reused from %s", ", ".join(taken), source)
    else:
        log.info("nothing is reused from %s: %s", source, reason)
    return taken


def difference(there: Mapping[str, Any], here: Mapping[str, Any], phase: str) -> str:
    """What two configs say differently about the way up to and through a phase, the first of it.

    Both complete and as JSON; phase is one of here. "" if they say the same.
    """
    count = here["phases"].index(phase) + 1
    return _first_difference(_upstream_config(there, count), _upstream_config(here, count))


def shared(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The phases at the beginning that two configs have in common; both complete and as JSON."""
    same = itertools.takewhile(lambda phase: not difference(there, here, phase), here["phases"])
    return list(same)


def _upstream_config(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """All of a config that decides what its first `count` phases do."""
    phases = config["phases"][:count]
    tasks = {name for phase in phases for name in config[phase]["tasks"]}
    return {
        "phases": phases,
        **{key: config[key] for key in ("seed", "weights", "model", "split", *phases)},
        "data": config_dicts.decisive(config)["data"],
        "tasks": {name: config["tasks"][name] for name in sorted(tasks)},
        "reference": config.get("reference", ""),
        "runtime": {"fsdp": config["runtime"]["fsdp"]},  # sums are then taken in another order
    }


def _first_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    a, b = trees.flatten(there), trees.flatten(here)
    for key in {**b, **a}:
        if a.get(key) != b.get(key):
            values = [reprlib.repr(values.get(key)) for values in (a, b)]
            return f"{key.replace('/', '.')} is {values[0]} there, {values[1]} here"
    return ""


def _provenance_difference(source: Path, here: Path) -> str:
    """How the weights, the images, or what either run was ever launched with differ, or ""."""
    told = [
        {
            "the digest of the weights": _read(folder / "original.json", {}).get("digest"),
            "the digest of the reference": _read(folder / "reference.json", {}).get("digest"),
            "the digest of the split": {
                path.stem: files.read_json(path)["digest"]
                for path in sorted((folder / "splits").glob("*.json"))
            },
        }
        for folder in (source, here)
    ]
    if text := _first_difference(*told):
        return text
    launches = [_launches(folder) for folder in (source, here)]
    now = {key: launches[1][-1][key] for key in MADE_BY}
    for launch in launches[0] + launches[1]:
        if text := _first_difference({key: launch.get(key) for key in MADE_BY}, now):
            return f"{text} (every launch counts)"
    return ""


def _launches(folder: Path) -> list[dict[str, Any]]:
    """What each launch ran with, the first one first."""
    first = _read(folder / "versions.json", {})
    return [first, *first.get("continued_with", [])]


def _read(path: Path, default: Any) -> Any:
    return files.read_json(path) if path.exists() else default


def done(folder: Path, phase: str, steps: int) -> bool:
    """Whether a workdir holds the end of a phase that has so many steps at most."""
    return _end(folder, phase, steps) is not None


def _end(folder: Path, phase: str, steps: int) -> Path | None:
    """The checkpoint after the last step of a phase, or after the one whose metrics say "ended"."""
    records = (r for r in files.read_jsonl(folder / "metrics.jsonl") if r["phase"] == phase)
    ends = itertools.chain([steps], (r["step"] + 1 for r in records if r.get("ended")))
    paths = (folder / "checkpoints" / phase / str(end) for end in ends)
    return next((path for path in paths if path.is_dir()), None)


def _begun(folder: Path, phase: str) -> str:
    """Why a phase is left to this run: it has checkpoints, whole or damaged. "" if it has none."""
    found = [path.name for path in (folder / "checkpoints" / phase).glob("*") if path.is_dir()]
    begun = any(name.isdigit() or name.startswith("damaged-") for name in found)
    return f"{phase} has checkpoints here and goes on from them" if begun else ""


def _unfinished(folder: Path, phase: str, steps: int) -> str:
    """Why the last checkpoint of a phase cannot be used; "" if it is what was written."""
    root = _end(folder, phase, steps)
    if root is None:
        return f"{phase} is not finished there"
    for name, digest in _read(root.with_name(f"{root.name}.sha256.json"), {}).items():
        if not (root / name).is_file() or files.sha256(root / name) != digest:
            return f"{root} is damaged"
    return ""


def _link_phase(source: Path, here: Path, phase: str) -> None:
    """The records first: a phase counts as done here from the moment its checkpoints appear."""
    _copy_records(source, here, phase)
    theirs, home = source / "checkpoints" / phase, here / "checkpoints" / phase
    making = home.with_name(MAKING.format(phase))
    shutil.copytree(theirs, making, ignore=IGNORED_FILES, copy_function=_link_file)
    if home.exists():
        shutil.rmtree(home)  # it holds no checkpoint: a save that was cut short, or nothing
    making.rename(home)


def _copy_records(source: Path, here: Path, phase: str) -> None:
    """The phase's lines of metrics.jsonl and its entry of phases.json, in place of what is here."""
    kept = [r for r in files.read_jsonl(here / "metrics.jsonl") if r["phase"] != phase]
    new = [r for r in files.read_jsonl(source / "metrics.jsonl") if r["phase"] == phase]
    with files.replacing(here / "metrics.jsonl") as file:
        file.writelines(json.dumps(record).encode() + b"\n" for record in kept + new)
    entries = _read(source / "phases.json", {})
    if phase in entries:
        ours = _read(here / "phases.json", {}) | {phase: entries[phase]}
        files.write_json(here / "phases.json", ours)


def _link_file(source: str, target: str) -> None:
    """A second name for the same file, into which nothing ever writes; or else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _remove_partial(experiment: Experiment) -> None:
    """Removes what a launch left that was killed on the way."""
    for phase in experiment.config["phases"]:
        left_over = experiment.workdir / "checkpoints" / MAKING.format(phase)
        shutil.rmtree(left_over, ignore_errors=True)
