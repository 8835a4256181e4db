"""Runs the commands on full and read-only disks, and with names that cannot be workdirs.

    python -m launch.drills.disks                  # about 5 minutes on two cores; needs `unshare`
    python -m launch.drills.disks --only full      # the lines that contain this text

The disks are small file systems in memory, mounted in a name space of the drill's own. A run that
stopped on a full disk must continue to the right results once there is room. See ending.py.
"""

import argparse
import contextlib
import functools
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from launch.drills import commands, damage, ending

SIZES = (4, 12, 24, 40, 64, 100, 160, 240, 400, 700)  # kB of a disk on which a run begins
FREE = (0, 4, 16, 48)  # kB that are free on the disk of a finished run
ENOUGH = 200_000  # kB
READ_ONLY = (  # command, whether the run is finished, whether the command writes nothing there
    ("main", False, False), ("main", True, True), ("evaluate", True, False),
    ("report", True, False), ("export", True, False), ("export", True, True), ("load", True, True),
)  # fmt: skip
NO_RUNS = {
    "a file": "file", "a folder below a file": "file/run", "a folder of other files": "configs",
    "a name of 300 letters": "runs/" + "n" * 300, "a path of 6,000 letters": "abcde/" * 1000,
}  # fmt: skip
TARGETS = {
    "a folder": "folder.pth", "a file below a file": "file/x.safetensors",
    "a name of 300 letters": "n" * 300 + ".safetensors",
}  # fmt: skip


class Disk:
    """A file system in memory, mounted on a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)
        self._mount("-t", "tmpfs", "-o", f"size={ENOUGH}k", "none")

    def _mount(self, *words: str) -> None:
        subprocess.run(["mount", *words, str(self.folder)], check=True)

    def resize(self, size: int) -> None:
        """Makes the disk `size` kB large."""
        self._mount("-o", f"remount,size={size}k")

    def leave(self, free: int) -> None:
        """Makes the disk so small that `free` kB are free."""
        status = os.statvfs(self.folder)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize // 1000 + 1
        self.resize(used + free)

    def make_read_only(self) -> None:
        """Remounts the disk read-only."""
        self._mount("-o", "remount,ro")

    def close(self) -> None:
        """Unmounts the disk."""
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """A disk that is unmounted at the end."""
    mounted = Disk(folder)
    try:
        yield mounted
    finally:
        mounted.close()


def run(place: Path, command: str, words: list[str]) -> commands.Done | None:
    """The finished command."""
    with damage.started(place, command, words) as wait:
        return wait(damage.SECONDS)


class Drill:
    """What is tried; a method returns an ending. `right` is what undamaged commands make."""

    def __init__(self, base: Path, scratch: Path):
        self.base, self.place = base, scratch / "place"
        self.right = {}
        for command, name in (("main", "unlearn"), ("report", "unlearn"), ("export", "unlearn")):
            place = damage.copied(base, self.place)
            said = damage.finish(place, command, damage.words(command, name)).stdout
            self.right[command] = damage.outcome(place, command, name, said)

    def how(self, command: str, done: commands.Done | None, *names: str) -> str:
        """The ending of a command on the workdir runs/unlearn."""
        said = done.stdout if done else ""
        made = damage.outcome(self.place, command, "unlearn", said)
        return ending.ending(done, made == self.right[command], names)

    def fresh(self, finished: bool) -> Path:
        """A new place, with a finished run or with none."""
        place = damage.copied(self.base, self.place)
        if not finished:
            shutil.rmtree(place / "runs/unlearn")
        return place

    @contextlib.contextmanager
    def on_disk(self, folder: str, finished: bool = True) -> Iterator[Disk]:
        """A new place, of which this folder is a disk."""
        place = self.fresh(finished)
        target, aside = place / folder, place / "aside"
        there = target.is_dir()
        if there:
            target.rename(aside)
        with disk(target) as mounted:
            if there:
                shutil.copytree(aside, target, dirs_exist_ok=True)
            yield mounted

    def full_from_the_start(self, size: int) -> str:
        """A run begins on a small disk; then the disk grows, and the run goes on."""
        words = damage.words("main", "unlearn")
        with self.on_disk("runs/unlearn", finished=False) as mounted:
            mounted.resize(size)
            how = self.how("main", run(self.place, "main", words), "runs/unlearn")
            if how == "explained":
                mounted.resize(ENOUGH)
                again = self.how("main", run(self.place, "main", words))
                how = how if again == "repaired" else again
        return how

    def full_when_finished(self, command: str, free: int) -> str:
        """A command writes into a finished run that has little room."""
        with self.on_disk("runs/unlearn") as mounted:
            words = damage.words(command, "unlearn")
            if command == "export":
                words[-1] = "runs/unlearn/exported.safetensors"
            mounted.leave(free)
            done = run(self.place, command, words)
            how = self.how("main" if command == "evaluate" else command, done, "runs/unlearn")
            if command == "export" and done and done.returncode == 0:
                how = "harmless"
        return how

    def read_only(self, command: str, finished: bool, harmless: bool) -> str:
        """A command on a read-only workdir."""
        with self.on_disk("runs/unlearn", finished) as mounted:
            mounted.make_read_only()
            words = damage.words(command, "unlearn")
            if command == "export" and not harmless:
                words[-1] = "runs/unlearn/exported.safetensors"
            done = run(self.place, command, words)
            known = "main" if command in ("evaluate", "load") else command
            if harmless and done and not done.returncode:
                return "harmless"
            return self.how(known, done, "runs/unlearn")

    def cache(self, state: str) -> str:
        """A run whose cache cannot be written."""
        with self.on_disk("cache", finished=False) as mounted:
            shutil.rmtree(self.place / "cache" / "completions")
            mounted.leave(0) if state == "full" else mounted.make_read_only()
            return self.how("main", run(self.place, "main", damage.words("main", "unlearn")))

    def no_run(self, command: str, folder: str) -> str:
        """A command that reads a workdir which cannot be one."""
        place = self.fresh(finished=True)
        (place / "file").touch()
        words = damage.words(command, "unlearn")
        words[-1 if command != "export" else 0] = folder
        done = run(place, command, words)
        return ending.ending(done, False, (folder[:60],))

    def target(self, path: str) -> str:
        """An export to a path that cannot be written."""
        place = self.fresh(finished=True)
        (place / "file").touch()
        (place / "folder.pth").mkdir()
        done = run(place, "export", ["runs/unlearn", path])
        return ending.ending(done, False, (path[:60],))

    def lines(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """(what is tried, the function that tries it and returns its ending) of all lines."""
        for size in SIZES:
            name = f"a full disk of {size} kB, then room: main"
            yield name, functools.partial(self.full_from_the_start, size)
        for command, free in itertools.product(("evaluate", "report", "export"), FREE):
            name = f"a full disk with {free} kB free, finished run: {command}"
            yield name, functools.partial(self.full_when_finished, command, free)
        for command, finished, harmless in READ_ONLY:
            state, to = "finished" if finished else "new", ""
            if command == "export" and harmless:
                to = ", to a place that can be written"
            name = f"a read-only disk, {state} run: {command}{to}"
            yield name, functools.partial(self.read_only, command, finished, harmless)
        for state in ("full", "read-only"):
            yield f"a {state} cache: main", functools.partial(self.cache, state)
        for command, (what, folder) in itertools.product(commands.COMMANDS, NO_RUNS.items()):
            yield f"{what} as workdir: {command}", functools.partial(self.no_run, command, folder)
        for what, path in TARGETS.items():
            yield f"{what} as target: export", functools.partial(self.target, path)


def main() -> int:
    """Runs the drill; the exit status is 1 if a line ends badly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="the lines that contain this text")
    given, began = parser.parse_args(), time.time()
    if (status := commands.restarted("launch.drills.disks", "unshare", "-rm")) is not None:
        return status
    scratch = Path(tempfile.mkdtemp(prefix="l2l_disks_"))
    try:
        damage.prepare(scratch / "base", scratch / "pictures")
        rows = []
        for name, tried in Drill(scratch / "base", scratch).lines():
            if given.only in name:
                rows.append((name, tried()))
                print(f"{rows[-1][1]:<10} {name}", flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(ending.table(rows, began))
    return ending.failed(rows)


if __name__ == "__main__":
    sys.exit(main())
