"""Runs the commands on full and read-only disks, and with names that cannot be workdirs.

    python -m launch.drills.disks                  # about 5 minutes on two cores; needs `unshare`
    python -m launch.drills.disks --only full      # the lines that contain this text

The disks are small file systems in memory, mounted in a name space of the drill's own. A run that
stopped on a full disk must continue to the right results once there is room. See ending.py.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from launch.drills import commands, damage, ending

SIZES = (4, 12, 24, 40, 64, 100, 160, 240, 400, 700)  # kB of a disk on which a run begins
FREE = (0, 4, 16, 48)  # kB that are free on the disk of a finished run
ENOUGH = 200_000  # kB


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
    """The lines, each a method's result (name, ending); `right` is what undamaged commands make."""

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

    def full_from_the_start(self, size: int) -> tuple[str, str]:
        """A run begins on a small disk; then the disk grows, and the run goes on."""
        words = damage.words("main", "unlearn")
        with self.on_disk("runs/unlearn", finished=False) as mounted:
            mounted.resize(size)
            how = self.how("main", run(self.place, "main", words), "runs/unlearn")
            if how == "explained":
                mounted.resize(ENOUGH)
                again = self.how("main", run(self.place, "main", words))
                how = how if again == "repaired" else again
        return f"a full disk of {size} kB, then room: main", how

    def full_when_finished(self, command: str, free: int) -> tuple[str, str]:
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
        return f"a full disk with {free} kB free, finished run: {command}", how

    def read_only(self, command: str, finished: bool, harmless: bool) -> tuple[str, str]:
        """A command on a read-only workdir."""
        with self.on_disk("runs/unlearn", finished) as mounted:
            mounted.make_read_only()
            words = damage.words(command, "unlearn")
            if command == "export" and not harmless:
                words[-1] = "runs/unlearn/exported.safetensors"
            done = run(self.place, command, words)
            known = "main" if command in ("evaluate", "load") else command
            how = self.how(known, done, "runs/unlearn")
            how = "harmless" if harmless and done and not done.returncode else how
        state = "finished" if finished else "new"
        to = ", to a place that can be written" if command == "export" and harmless else ""
        return f"a read-only disk, {state} run: {command}{to}", how

    def cache(self, state: str) -> tuple[str, str]:
        """A run whose cache cannot be written."""
        with self.on_disk("cache", finished=False) as mounted:
            shutil.rmtree(self.place / "cache" / "completions")
            mounted.leave(0) if state == "full" else mounted.make_read_only()
            how = self.how("main", run(self.place, "main", damage.words("main", "unlearn")))
        return f"a {state} cache: main", how

    def no_run(self, command: str, what: str, folder: str) -> tuple[str, str]:
        """A command that reads a workdir which cannot be one."""
        place = self.fresh(finished=True)
        (place / "file").touch()
        words = damage.words(command, "unlearn")
        words[-1 if command != "export" else 0] = folder
        done = run(place, command, words)
        return f"{what} as workdir: {command}", ending.ending(done, False, (folder[:60],))

    def target(self, what: str, path: str) -> tuple[str, str]:
        """An export to a path that cannot be written."""
        place = self.fresh(finished=True)
        (place / "file").touch()
        (place / "folder.pth").mkdir()
        done = run(place, "export", ["runs/unlearn", path])
        return f"{what} as target: export", ending.ending(done, False, (path[:60],))

    def lines(self) -> Iterator[tuple[str, str]]:
        """All lines."""
        for size in SIZES:
            yield self.full_from_the_start(size)
        for command in ("evaluate", "report", "export"):
            for free in FREE:
                yield self.full_when_finished(command, free)
        yield self.read_only("main", finished=False, harmless=False)
        yield self.read_only("main", finished=True, harmless=True)
        yield self.read_only("evaluate", finished=True, harmless=False)
        yield self.read_only("report", finished=True, harmless=False)
        yield self.read_only("export", finished=True, harmless=False)
        yield self.read_only("export", finished=True, harmless=True)
        yield self.read_only("load", finished=True, harmless=True)
        yield self.cache("full")
        yield self.cache("read-only")
        for command in ("main", "evaluate", "report", "export", "load"):
            yield self.no_run(command, "a file", "file")
            yield self.no_run(command, "a folder below a file", "file/run")
            yield self.no_run(command, "a name of 300 letters", "runs/" + "n" * 300)
            yield self.no_run(command, "a path of 6,000 letters", "runs/" + "abcdefghi/" * 600)
            yield self.no_run(command, "a folder of other files", "configs")
        yield self.target("a folder", "folder.pth")
        yield self.target("a file below a file", "file/x.safetensors")
        yield self.target("a name of 300 letters", "n" * 300 + ".safetensors")


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
        for name, how in Drill(scratch / "base", scratch).lines():
            if given.only in name:
                rows.append((name, how))
                print(f"{how:<10} {name}", flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(ending.table(rows, began))
    return ending.failed(rows)


if __name__ == "__main__":
    sys.exit(main())
