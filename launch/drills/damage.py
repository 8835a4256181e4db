"""Damages each kind of file of a workdir and of the caches, and runs the commands that read it.

    python -m launch.drills.damage                  # about 15 minutes on two cores
    python -m launch.drills.damage --only splits    # the lines that contain this text
    python -m launch.drills.damage --verbose        # with the messages

Every file is flipped in one bit, cut in half, emptied, deleted, and replaced by a folder. A line
ends well if the command names the file and stops, or finishes with the results of the undamaged
run, bit for bit; see ending.py. A command that finishes with other results ends well only if it
says in one line which file is incomplete. Files that hold nothing (.lock) cannot be flipped or cut;
folders are deleted, and replaced by a file.
"""

import argparse
import contextlib
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from l2l_jax.lib import files
from launch.drills import commands, ending
from tests.helpers import DAMAGE

SECONDS = 240  # after which a command hangs
JOBS = 2  # commands at a time
CONFIG = '''
"""The configs of the drill: the smallest runs that leave every kind of file."""
from l2l_jax.registry import find
from tests import helpers

def get_config(form):
    config = helpers.small_config()
    config.data.update(dict(name="folder", cache="disk"))
    config.data.args = dict(root={root!r}, eval_fraction=0.3)
    config.split.forget.classes = ("a",)
    config.evaluators = dict(fid=dict(), reconstruction=dict(), tsne=dict(points=6))
    if form == "tokens":
        config.model = dict(name="mage", args=find("model", "mage").SMALLEST)
        config.tasks.random_ratio = dict(task="random_ratio", args=dict())
        config.pretrain.tasks = config.unlearn.tasks = ("random_ratio",)
        config.unlearn.steps = 2
        config.data.token_cache.update(dict(views=2, noise=16))
        config.evaluators = dict(reconstruction=dict())
    elif form == "unlearn":
        config.phases = ("unlearn",)
        config.weights, config.reference = {weights!r}, {reference!r}
    else:
        config.phases = ("pretrain",)
        config.pretrain.on = "retain" if form == "reference" else "all"
        config.evaluators = dict(reconstruction=dict())
    return config
'''
MARKS = ("damaged", "missing", "lacks", "does not fit", "cannot be read", "incomplete", "no split")
EXPORTED, WEIGHTS = "exported.safetensors", "original.safetensors"


def words(command: str, run: str) -> list[str]:
    """The arguments of a command on a workdir, in a place."""
    folder, form = f"runs/{run}", "unlearn" if run == "stopped" else run
    return {
        "main": ["--config", f"configs/drill.py:{form}", "--workdir", folder],
        "evaluate": ["--workdir", folder],
        "report": [folder],
        "export": [folder, EXPORTED],
        "load": [folder],
    }[command]


def started(place: Path, command: str, arguments: Sequence[str]) -> Any:
    """A command that runs in a place: a folder with configs/, runs/, cache/ and weights."""
    env = {"L2L_CACHE": str(place / "cache")}
    return commands.started(command, arguments, env, lambda: os.chdir(place))


# Where the files are, below the folder of a workdir, and which commands read them.
IN_FINISHED = {
    "config.json": ("main", "evaluate", "report", "export", "load"),
    "versions.json": ("evaluate", "report"),
    "original.json": ("evaluate", "export"),
    "reference.json": ("evaluate", "load"),
    "phases.json": ("evaluate",),
    "results.json": ("main", "report"),
    "report.html": ("main",),
    "metrics.jsonl": ("evaluate", "report"),
    "tsne.json": ("report",),
    "images/center_forget.png": ("report",),
    "splits/forget.json": ("evaluate", "report"),
    "splits/retain_eval.json": ("evaluate", "report"),
    ".lock": ("evaluate",),
    "checkpoints/unlearn/6/default/d/*": ("evaluate", "export", "load"),
    "checkpoints/unlearn/6/_CHECKPOINT_METADATA": ("evaluate",),
    "checkpoints/unlearn": ("main", "evaluate", "export", "load"),
    "checkpoints/unlearn/6": ("evaluate",),
    "splits": ("evaluate", "report"),
    "images": ("report",),
    "checkpoints/unlearn/6.sha256.json": ("evaluate", "export"),
}
IN_STOPPED = {
    "config.json": ("main",),
    "versions.json": ("main",),
    "phases.json": ("main",),
    "metrics.jsonl": ("main",),
    "splits/forget.json": ("main",),
    "checkpoints/unlearn/4/default/d/*": ("main",),
    "checkpoints/unlearn/4/default/_METADATA": ("main",),
    "checkpoints/unlearn/4.sha256.json": ("main",),
}
OUTSIDE = {  # below the scratch folder: (files, command, workdir that it is run on)
    "cache/completions/*": ("evaluate", "unlearn"),
    "cache/classifier-*": ("evaluate", "unlearn"),
    "cache/images/*/*.rgb": ("main", "stopped"),
    "cache/tokens-*/*/*.npy": ("main", "tokens"),
    "cache/tokens-*/about.json": ("main", "tokens"),
    "original.safetensors": ("evaluate", "unlearn"),
    "runs/reference/checkpoints/pretrain/2/default/d/*": ("evaluate", "unlearn"),
    "runs/reference/splits/retain.json": ("evaluate", "unlearn"),
}


FOLDERS = ("checkpoints/unlearn", "checkpoints/unlearn/6", "splits", "images")


def make_file(folder: Path) -> None:
    """Puts a file in the place of a folder."""
    shutil.rmtree(folder)
    folder.touch()


FOLDER_DAMAGE = {"deleted": shutil.rmtree, "a file": make_file}


class Line(NamedTuple):
    """One line of the drill."""

    pattern: str  # the damaged file, below the scratch folder
    damage: str
    command: str
    run: str

    @property
    def name(self) -> str:
        """What was tried."""
        return f"{self.pattern}, {self.damage}: {self.command}"


def lines() -> Iterator[Line]:
    """All lines of the drill."""
    below = itertools.chain(
        ((f"runs/unlearn/{path}", c, "unlearn") for path, cs in IN_FINISHED.items() for c in cs),
        ((f"runs/stopped/{path}", c, "stopped") for path, cs in IN_STOPPED.items() for c in cs),
        ((path, command, run) for path, (command, run) in OUTSIDE.items()),
    )
    for pattern, command, run in below:
        damages = FOLDER_DAMAGE if pattern.endswith(FOLDERS) else DAMAGE
        for damage in damages:
            if not (pattern.endswith(".lock") and damage not in ("deleted", "a folder")):
                yield Line(pattern, damage, command, run)


def prepare(base: Path, pictures: Path) -> None:
    """Makes the undamaged runs by the commands of a user; `pictures` is never changed."""
    for label, name in enumerate("abcd"):
        (pictures / name).mkdir(parents=True)
        for i in range(16):
            rng = np.random.default_rng((label, i))
            pixels = rng.integers(0, 128, (16, 16, 3), np.uint8) + np.uint8(32 * label)
            Image.fromarray(pixels).save(pictures / name / f"{i:02d}.png")
    (base / "configs").mkdir(parents=True)
    values = dict(root=str(pictures), weights=WEIGHTS, reference="runs/reference")
    (base / "configs" / "drill.py").write_text(CONFIG.format(**values).lstrip())
    for form in ("original", "reference", "unlearn", "tokens"):
        if form == "unlearn":
            finish(base, "export", ["runs/original", WEIGHTS])
        finish(base, "main", words("main", form))
    stopped = shutil.copytree(base / "runs/unlearn", base / "runs/stopped")
    for gone in ("results.json", "report.html", "tsne.json", "images", "checkpoints/unlearn/6",
                 "checkpoints/unlearn/6.sha256.json"):  # fmt: skip
        path = stopped / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(base / "runs/tokens")


def finish(place: Path, command: str, arguments: Sequence[str]) -> commands.Done:
    """Runs a command that must succeed."""
    with started(place, command, arguments) as wait:
        done = wait(SECONDS)
    if done is None or done.returncode:
        sys.exit(f"The undamaged {command} failed:\n{done and done.stdout}")
    return done


def outcome(place: Path, command: str, run: str, said: str) -> Any:
    """What a command made, without times; None if it made nothing."""
    folder = place / "runs" / run
    with contextlib.suppress(OSError, ValueError):
        if command == "report":
            return (folder / "report.html").read_bytes()
        if command == "export":
            return (place / EXPORTED).read_bytes()
        if command == "load":
            return [text for text in said.splitlines() if text.startswith(("orig", "unl", "retr"))]
        results = files.read_json(folder / "results.json")
        pictures = [path.read_bytes() for path in sorted((folder / "images").glob("*.png"))]
        weights = results["digests"]["weights"]
        return results["tasks"], weights, results["steps"], pictures
    return None


def told_as(pattern: str) -> str:
    """What the message about a damaged file must contain."""
    _, phase, step = pattern.rpartition("checkpoints/")
    if pattern.endswith(FOLDERS) and phase:
        return "checkpoints/unlearn"
    if phase:
        return "/".join(["checkpoints", *step.split("/")[:2]]).removesuffix(".sha256.json")
    return [part.strip("*-") for part in pattern.split("/") if part.strip("*-")][-1]


def judged(line: Line, place: Path, done: commands.Done | None, right: Any) -> str:
    """The ending of a line."""
    said = done.stdout if done else ""
    equal = done is not None and outcome(place, line.command, line.run, said) == right
    names = [told_as(line.pattern), *(["is at step"] if "checkpoints" in line.pattern else [])]
    how = ending.ending(done, equal, names)
    told = [text for text in said.splitlines() if any(mark in text for mark in MARKS)]
    if how == "silent" and done and done.returncode == 0:
        how = "explained" if any(name in text for text in told for name in names) else how
    return how


def tried(chosen: Sequence[Line], base: Path, scratch: Path) -> Iterator[tuple[Line, str, str]]:
    """(line, its ending, what the command said) of each line; JOBS lines at a time."""
    right: dict[tuple[str, str], Any] = {}
    with contextlib.ExitStack() as stack:
        for first in range(0, len(chosen), JOBS):
            batch, running = chosen[first : first + JOBS], []
            for job, line in enumerate(batch):
                if (key := (line.command, line.run)) not in right:
                    place = copied(base, scratch / "right")
                    said = finish(place, line.command, words(line.command, line.run)).stdout
                    right[key] = outcome(place, line.command, line.run, said)
                place = copied(base, scratch / f"place{job}")
                do_damage(place, line)
                wait = stack.enter_context(
                    started(place, line.command, words(line.command, line.run))
                )
                running.append((line, place, wait))
            for line, place, wait in running:
                done = wait(SECONDS)
                how = judged(line, place, done, right[line.command, line.run])
                yield line, how, done.stdout if done else ""
            stack.pop_all().close()


def copied(base: Path, place: Path) -> Path:
    """A new copy of all undamaged files."""
    shutil.rmtree(place, ignore_errors=True)
    return shutil.copytree(base, place)


def do_damage(place: Path, line: Line) -> None:
    """Damages a folder, or the largest file that fits the pattern."""
    if line.pattern.endswith(FOLDERS):
        FOLDER_DAMAGE[line.damage](place / line.pattern)
        return
    found = [path for path in place.glob(line.pattern) if path.is_file()]
    DAMAGE[line.damage](max(found, key=lambda path: (path.stat().st_size, str(path))))


def main() -> int:
    """Runs the drill; the exit status is 1 if a line ends badly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="the lines that contain this text")
    parser.add_argument("--verbose", action="store_true", help="print what the commands said")
    given, began = parser.parse_args(), time.time()
    if (status := commands.restarted("launch.drills.damage")) is not None:
        return status
    scratch = Path(tempfile.mkdtemp(prefix="l2l_damage_"))
    try:
        prepare(scratch / "base", scratch / "pictures")
        print(f"undamaged runs: {time.time() - began:.0f} s", flush=True)
        rows = []
        chosen = [line for line in lines() if given.only in line.name]
        for line, how, said in tried(chosen, scratch / "base", scratch):
            rows.append((line.name, how))
            print(f"{how:<10} {line.name}", flush=True)
            if given.verbose or how in ending.BAD:
                print("    " + "\n    ".join(said.splitlines()[-6:]), flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(ending.table(rows, began))
    return ending.failed(rows)


if __name__ == "__main__":
    sys.exit(main())
