"""Reuses the first phases of another workdir if they would be exactly the same here.

The runs of a grid often begin with the same phases: one pretrained original for all methods, one
search for the boundaries of the epsilon solver for all values of r. With
config.runtime.begin_from=WORKDIR such phases are copied in place of being run again. The result is
the same, bit for bit: whatever could change it is compared, and at the first difference no further
phase is reused.
"""

import itertools
import logging
import os
import reprlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2l_jax.engine.experiment import Experiment
from l2l_jax.lib import config_dicts, files, hosts, trees
from l2l_jax.lib.errors import ConfigError, Damaged, NotSaved
from l2l_jax.lib.errors import reason as why
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)

PROVENANCE = ("code", "packages", "devices", "processes")  # keys of versions.json that decide bits
PARTIAL = ".{}.reusing"  # name of a phase's checkpoints until all of them are here
IGNORED_FILES = shutil.ignore_patterns(".*", "damaged-*", "*.orbax-checkpoint-tmp*")


def reuse_phases(experiment: Experiment) -> list[str]:
    """Reuses phases of config.runtime.begin_from. Returns their names.

    Every process calls it once the workdir is claimed; the main process copies, the others wait.
    Raises ConfigError if begin_from holds no run, NotSaved if the copies cannot be written.
    """
    taken: list[str] = []
    with hosts.fail_together():
        if hosts.is_main():
            _remove_partial(experiment)
            if begin_from := experiment.config["runtime"]["begin_from"]:
                taken = _reuse_phases(experiment, Path(begin_from).expanduser())
    return taken


def _reuse_phases(experiment: Experiment, source: Path) -> list[str]:
    """On the main process: phase after phase until one of them cannot be reused."""
    here, config = experiment.workdir.folder, files.as_json(experiment.config)
    there = Workdir(source).read_config()
    if source.resolve() == here.resolve():
        raise ConfigError(f"runtime.begin_from={source} is this workdir itself; name another one.")
    taken, reason = [], "all phases are here already"
    for phase in config["phases"]:
        steps = experiment.plan.phases[phase].steps
        if experiment.plan.phases[phase].method.begin or done(here, phase, steps):
            continue  # without a step there is nothing to copy
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
                f"{phase} could not be reused from {source}: {why(error)}. Nothing was lost; make "
                "room, or leave runtime.begin_from empty to do it here."
            ) from error
        taken.append(phase)
    if taken:
        log.info("%s: reused from %s", ", ".join(taken), source)
    else:
        log.info("nothing is reused from %s: %s", source, reason)
    return taken


def difference(there: Mapping[str, Any], here: Mapping[str, Any], phase: str) -> str:
    """The first difference of two configs that affects a phase or a phase before it, in words.

    Both configs are complete and as JSON; `phase` is one of `here`. "" if there is no difference.
    """
    count = here["phases"].index(phase) + 1
    return _first_difference(_upstream_config(there, count), _upstream_config(here, count))


def shared(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The first phases that two configs have in common; both are complete and as JSON."""
    same = itertools.takewhile(lambda phase: not difference(there, here, phase), here["phases"])
    return list(same)


def _upstream_config(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The part of a config that decides what its first `count` phases do."""
    phases = config["phases"][:count]
    tasks = {name for phase in phases for name in config[phase]["tasks"]}
    return {
        "phases": phases,
        **{key: config[key] for key in ("seed", "weights", "model", "split", *phases)},
        "data": config_dicts.decisive(config)["data"],
        "tasks": {name: config["tasks"][name] for name in sorted(tasks)},
        "reference": config.get("reference", ""),
        "runtime": {"fsdp": config["runtime"]["fsdp"]},  # decides the order of sums
    }


def _first_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    a, b = trees.flatten(there), trees.flatten(here)
    for key in {**b, **a}:
        if a.get(key) != b.get(key):
            values = [reprlib.repr(values.get(key)) for values in (a, b)]
            return f"{key.replace('/', '.')} is {values[0]} there, {values[1]} here"
    return ""


def _provenance_difference(source: Path, here: Path) -> str:
    """How the weights, the images, or any launch of the two runs differ; "" if they do not."""
    digests = [
        {
            "the digest of the weights": _read(Workdir(folder).original).get("digest"),
            "the digest of the reference": _read(Workdir(folder).reference).get("digest"),
            "the digest of the split": {
                name: split["digest"] for name, split in Workdir(folder).read_splits().items()
            },
        }
        for folder in (source, here)
    ]
    if text := _first_difference(*digests):
        return text
    launches = [_launches(folder) for folder in (source, here)]
    now = {key: launches[1][-1][key] for key in PROVENANCE}
    for launch in launches[0] + launches[1]:
        if text := _first_difference({key: launch.get(key) for key in PROVENANCE}, now):
            return f"{text} (every launch counts)"
    return ""


def _launches(folder: Path) -> list[dict[str, Any]]:
    """Code, packages and devices of each launch, in order."""
    first = Workdir(folder).read_versions()
    return [first, *first.get("continued_with", [])]


def _read(path: Path) -> dict[str, Any]:
    return files.read_json(path) if path.exists() else {}


def done(folder: Path, phase: str, steps: int) -> bool:
    """Whether a workdir holds the last checkpoint of a phase of at most `steps` steps."""
    return _end(folder, phase, steps) is not None


def _end(folder: Path, phase: str, steps: int) -> Path | None:
    """The checkpoint after the last step of a phase, or after the step at which it ended itself."""
    records = (r for r in Workdir(folder).read_metrics() if r["phase"] == phase)
    ends = itertools.chain([steps], (r["step"] + 1 for r in records if r.get("ended")))
    paths = (Workdir(folder).checkpoints(phase) / str(end) for end in ends)
    return next((path for path in paths if path.is_dir()), None)


def _begun(folder: Path, phase: str) -> str:
    """Why a phase is not reused: it has checkpoints here, intact or damaged. "" if it has none."""
    found = [path.name for path in Workdir(folder).checkpoints(phase).glob("*") if path.is_dir()]
    begun = any(name.isdigit() or name.startswith("damaged-") for name in found)
    return f"{phase} has checkpoints here and goes on from them" if begun else ""


def _unfinished(folder: Path, phase: str, steps: int) -> str:
    """Why the last checkpoint of a phase cannot be used; "" if it is intact."""
    root = _end(folder, phase, steps)
    if root is None:
        return f"{phase} is not finished there"
    try:
        digests = _read(root.with_name(f"{root.name}.sha256.json"))
    except Damaged as error:
        return str(error)
    for name, digest in digests.items():
        if not (root / name).is_file() or files.sha256(root / name) != digest:
            return f"{root} is damaged"
    return ""


def _link_phase(source: Path, here: Path, phase: str) -> None:
    """Copies a phase. Records come first: the phase is done here once its checkpoints appear."""
    _copy_records(source, here, phase)
    origin, home = Workdir(source).checkpoints(phase), Workdir(here).checkpoints(phase)
    making = home.with_name(PARTIAL.format(phase))
    shutil.copytree(origin, making, ignore=IGNORED_FILES, copy_function=_link_file)
    if home.exists():
        shutil.rmtree(home)  # it holds no checkpoint: a save that was cut short, or nothing
    making.rename(home)


def _copy_records(source: Path, here: Path, phase: str) -> None:
    """Replaces the phase's lines of metrics.jsonl and its notes by those of the source."""
    kept = [r for r in Workdir(here).read_metrics() if r["phase"] != phase]
    new = [r for r in Workdir(source).read_metrics() if r["phase"] == phase]
    with files.atomic_write(Workdir(here).metrics) as file:
        file.writelines(map(files.json_line, kept + new))
    entries = Workdir(source).read_notes()
    if phase in entries:
        notes = Workdir(here).read_notes() | {phase: entries[phase]}
        files.write_json(Workdir(here).notes, notes)


def _link_file(source: str, target: str) -> None:
    """A hard link, since nothing ever writes into the file; a copy where links are impossible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _remove_partial(experiment: Experiment) -> None:
    """Removes what a launch left behind that was killed while it copied."""
    for phase in experiment.plan.phases:
        left_over = experiment.workdir.checkpoints(PARTIAL.format(phase))
        shutil.rmtree(left_over, ignore_errors=True)
