"""Checkpoints: a small class around orbax. Asynchronous, atomic, the newest N are kept.

A checkpoint holds what a step changes (student, optimizer, step) and nothing else. It is restored
onto an abstract tree with shardings that the caller gives, so the number of devices may change.
Orbax does not detect a flipped bit in a file, so the SHA-256 of the files of each checkpoint are
stored beside it; a damaged checkpoint is renamed, and the one before it is used.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from l2l_jax.lib import files, hosts, trees
from l2l_jax.lib.errors import Damaged, NotSaved, Unrestorable, is_full, not_saved, reason

log = logging.getLogger(__name__)

MOUNTS = Path("/proc/self/mounts")
MAX_BROADCAST_STEPS = 64  # checkpoints whose steps the main process sends to the others


def on_fuse(path: Path) -> bool:
    """Whether a path is in a FUSE file system, such as a bucket that gcsfuse mounts; on Linux."""
    try:
        mounts = [line.split() for line in MOUNTS.read_text().splitlines()]
    except OSError:
        return False
    kinds = {Path(place.replace("\\040", " ")): kind for _, place, kind, *_ in mounts}
    return next((kinds[p] for p in (path, *path.parents) if p in kinds), "").startswith("fuse")


def _atomicity(folder: Path) -> ocp.options.AtomicityOptions:
    """In a bucket a folder is not renamed in one operation: a file marks a whole checkpoint."""
    modes = ocp.options.AtomicityMode
    if on_fuse(folder.resolve()):
        return ocp.options.AtomicityOptions(modes.COMMIT_FILE, allow_legacy_atomic_rename=True)
    return ocp.options.AtomicityOptions(modes.ATOMIC_RENAME)


class Checkpoints:
    """The checkpoints of one phase: the sub-folders <step> of `folder` (Workdir.checkpoints).

    keep: how many of the newest are kept. With None nothing is created, removed or renamed.
    """

    def __init__(self, folder: Path, keep: int | None = None):
        self.folder = folder.absolute()
        self._writes = keep is not None
        self._saving: int | None = None  # the step whose digests are not stored yet
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            cleanup_tmp_directories=self._writes,
            read_only=not self._writes,
            create=self._writes,
            atomicity_options=_atomicity(self.folder),
        )
        self._optional_manager = None
        if self.folder.exists() and not self.folder.is_dir():
            raise Damaged(f"{self.folder} is a file; it should be a folder. Move it away.")
        if self._writes or self.folder.exists():
            self._check_entries()
            try:
                self._optional_manager = ocp.CheckpointManager(self.folder, options=options)
            except OSError as error:
                raise not_saved(self.folder, error) from error

    @property
    def _manager(self) -> ocp.CheckpointManager:
        if self._optional_manager is None:
            raise FileNotFoundError(f"There is no folder {self.folder}.")
        return self._optional_manager

    def steps(self) -> list[int]:
        """Steps with a checkpoint, oldest first."""
        return sorted(self._manager.all_steps()) if self._optional_manager else []

    def save(self, step: int, state: Any) -> None:
        """Starts writing; the arrays may be donated when this returns.

        NotSaved if this or the save before it failed.
        """
        self.wait()
        with self._as_not_saved(step):
            free, needed = shutil.disk_usage(self.folder).free, trees.nbytes(state)
            if free < needed:  # orbax would fail halfway, with many tracebacks
                raise OSError(f"No space left: {needed:,} bytes are needed, {free:,} are free")
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)  # pyright: ignore[reportCallIssue]  # a dataclass
        self._saving = step

    def wait(self) -> None:
        """Blocks until the last save and its digests are on disk. NotSaved if that failed."""
        if self._saving is None:
            return
        step, self._saving = self._saving, None
        with self._as_not_saved(step):
            self._manager.wait_until_finished()
            if hosts.is_main():
                self._store_digests(step)

    def close(self) -> None:
        """Finishes the save in progress and stops orbax's threads; a failure is only logged."""
        try:
            if self._optional_manager:
                self._optional_manager.close()
        except Exception as error:  # must not hide the error that made the caller close
            log.warning("the checkpoint in progress was not written: %s", str(error)[:200])

    def restore(self, abstract: Any, only_newest: bool = False) -> Any | None:
        """The newest undamaged state, or None if there is no checkpoint at all.

        abstract: a tree of ShapeDtypeStructs with shardings. Damaged checkpoints newer than the one
        returned are renamed, not removed. Unrestorable if there are checkpoints but none can be
        read. only_newest: Damaged if the newest checkpoint is damaged.
        """
        steps = self.steps()
        undamaged = self._steps_of_main([step for step in steps if self._is_undamaged(step)])
        for step in reversed(undamaged):
            try:
                state = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
            except Exception as error:  # of any kind: the checkpoint before it may be readable
                if not hosts.single_process():
                    raise
                log.warning(
                    "checkpoint %s is damaged: %s", self.folder / str(step), str(error)[:500]
                )
                continue
            damaged = [other for other in steps if other > step]
            if damaged and only_newest:
                raise Damaged(
                    f"{self.folder / str(damaged[-1])} is damaged; the newest intact checkpoint is "
                    f"{step}. To continue from there, remove results.json, if there is one, and "
                    "run the command of this run again."
                )
            self._rename_damaged(damaged)
            return state
        if steps:
            raise Unrestorable(
                f"None of the checkpoints {steps} in {self.folder} can be read; the reasons are in "
                "the log above. Remove that folder to start the phase again."
            )
        return None

    def _steps_of_main(self, steps: list[int]) -> list[int]:
        """The list of the main process, so that all processes restore the same step."""
        padded, newest = np.full(MAX_BROADCAST_STEPS, -1), steps[-MAX_BROADCAST_STEPS:]
        padded[: len(newest)] = newest
        return [int(step) for step in hosts.from_main(padded) if step >= 0]

    def _rename_damaged(self, steps: list[int]) -> None:
        """Renames the checkpoints to damaged-<step>, if this object writes."""
        if not steps or not self._writes:
            return
        for step in steps:
            earlier = len(list(self.folder.glob(f"damaged-{step}*")))
            target = self.folder / (f"damaged-{step}" + (f"-{earlier}" if earlier else ""))
            if hosts.is_main():
                (self.folder / str(step)).rename(target)
                files.remove(self._digest_file(step))
            log.warning("using the checkpoint before step %d; it is kept as %s", step, target)
        hosts.barrier("damaged checkpoints are renamed")
        self._manager.reload()

    def _check_entries(self) -> None:
        """Damaged if a file has the name of a checkpoint, which is a folder."""
        for path in self.folder.glob("[0-9]*"):
            if path.name.isdigit() and not path.is_dir():
                raise Damaged(
                    f"{path} is a file; a checkpoint is a folder. Move it away: the one before it "
                    "is used."
                )

    def _digest_file(self, step: int) -> Path:
        return self.folder / f"{step}.sha256.json"

    def _digests(self, step: int) -> dict[str, str]:
        """{path below the checkpoint: SHA-256} of all files of a checkpoint."""
        root = self.folder / str(step)
        paths = (path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): files.sha256(path) for path in paths}

    def _store_digests(self, step: int) -> None:
        """Writes the digests of a checkpoint and removes those of removed checkpoints."""
        files.write_json(self._digest_file(step), self._digests(step))
        kept = {self._digest_file(step) for step in self.steps()}
        for path in set(self.folder.glob("*.sha256.json")) - kept:
            files.remove(path)

    def _is_undamaged(self, step: int) -> bool:
        """Whether the files match their digests; logs a warning if not.

        True if no digests are stored: the writer was killed after orbax had committed the
        checkpoint; and, with a warning, if the file of digests is damaged itself. True on all
        processes but the main one, whose answer counts.
        """
        if not hosts.is_main() or not self._digest_file(step).exists():
            return True
        try:
            stored = files.read_object(
                self._digest_file(step), f"Checkpoint {step} is used without a check."
            )
        except Damaged as error:
            log.warning("%s", error)
            return True
        now = self._digests(step)
        wrong = sorted(name for name in stored | now if stored.get(name) != now.get(name))
        if wrong:
            why = f"{len(wrong)} of its files changed or are missing, such as {wrong[0]}"
            log.warning("checkpoint %s is damaged: %s", self.folder / str(step), why)
        return not wrong

    @contextlib.contextmanager
    def _as_not_saved(self, step: int) -> Iterator[None]:
        """Turns any error of a failed write into NotSaved, which names the newest checkpoint."""
        try:
            yield
        except Exception as error:
            why = reason(error)
            why = f"the disk is full ({why[:100]})" if is_full(error) else why[:500]
            others = [other for other in self.steps() if other != step]
            newest = f"checkpoint {others[-1]} is intact" if others else "there is no earlier one"
            raise NotSaved(
                f"Step {step} could not be saved to {self.folder}: {why}; {newest}. Free some "
                "space and run the same command again to continue from there."
            ) from error
