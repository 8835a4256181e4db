"""Checkpoints: orbax behind one small class. Asynchronous, atomic, the newest N kept.

A checkpoint holds what a step changes (student, optimizer, step) and nothing else. It is always
restored onto our own abstract tree with our own shardings, so the number of devices may change.
Orbax restores a file with a flipped bit without complaint, so each checkpoint is sealed with the
SHA-256 of its files; a damaged one is noticed, put aside, and the one before it is used.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from l2l_jax.lib import files, trees
from l2l_jax.lib.errors import NotSaved, Unrestorable

log = logging.getLogger(__name__)

FULL = ("No space left", "os_error_code='28'", "File too large", "Disk quota exceeded")


class Checkpoints:
    """The checkpoints of one phase, in workdir/checkpoints/<phase>/<step>."""

    def __init__(self, folder: Path, keep: int):
        self.folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._unsealed: int | None = None

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any) -> None:
        """Starts writing; the arrays may be donated at once. NotSaved if the last save failed."""
        self.wait()
        with self._explained(step):
            free, needed = shutil.disk_usage(self.folder).free, trees.nbytes(state)
            if free < needed:  # orbax would find out halfway, and say so in a hundred tracebacks
                raise OSError(f"{FULL[0]}: {needed:,} bytes are needed, {free:,} are free")
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)
        self._unsealed = step

    def wait(self) -> None:
        """Blocks until the last save is on disk, and seals it. NotSaved if that failed."""
        if self._unsealed is None:
            return
        step, self._unsealed = self._unsealed, None
        with self._explained(step):
            self._manager.wait_until_finished()
            if jax.process_index() == 0:
                self._seal(step)

    def close(self) -> None:
        """Releases orbax's threads; a save under way is finished, its errors are not raised."""
        self._manager.close()

    def restore(self, abstract: Any) -> Any | None:
        """The newest state that is whole, or None if there is no checkpoint at all.

        abstract: a tree of ShapeDtypeStructs with shardings. Damaged checkpoints newer than the one
        used are renamed, not removed.
        """
        steps = self.steps()
        for at in reversed(range(len(steps))):
            try:
                self._check_seal(steps[at])
                state = self._manager.restore(steps[at], args=ocp.args.StandardRestore(abstract))
            except Exception as error:  # whatever is wrong with it, the one before may be whole
                where = self.folder / str(steps[at])
                log.warning("checkpoint %s is damaged: %s", where, str(error)[:500])
                continue
            self._put_aside(steps[at + 1 :])
            return state
        if steps:
            raise Unrestorable(
                f"None of the checkpoints {steps} in {self.folder} can be read; the reasons are in "
                "the log above. Remove that folder to start the phase again."
            )
        return None

    def _put_aside(self, steps: list[int]) -> None:
        for step in steps:
            aside = self.folder / f"damaged-{step}"
            if jax.process_index() == 0:
                (self.folder / str(step)).rename(aside)
                self._seal_of(step).unlink(missing_ok=True)
            log.warning("going back to the checkpoint before it; it is kept as %s", aside)
        if steps:
            self._manager.reload()

    def _seal_of(self, step: int) -> Path:
        return self.folder / f"{step}.sha256.json"

    def _digests(self, step: int) -> dict[str, str]:
        root = self.folder / str(step)
        found = (path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): files.sha256(path) for path in found}

    def _seal(self, step: int) -> None:
        files.write_json(self._seal_of(step), self._digests(step))
        kept = {self._seal_of(step) for step in self.steps()}
        for seal in set(self.folder.glob("*.sha256.json")) - kept:
            seal.unlink()

    def _check_seal(self, step: int) -> None:
        """One whose writer was killed before sealing it has no seal; orbax had committed it."""
        if not self._seal_of(step).exists():
            return
        want, got = files.read_json(self._seal_of(step)), self._digests(step)
        wrong = sorted(name for name in want | got if want.get(name) != got.get(name))
        if wrong:
            raise ValueError(f"{len(wrong)} of its files changed or vanished, such as {wrong[0]}")

    @contextlib.contextmanager
    def _explained(self, step: int) -> Iterator[None]:
        """Turns the many errors of a failed write into one that says what is safe."""
        try:
            yield
        except Exception as error:
            text = str(error)
            full = any(mark in text for mark in FULL)
            reason = f"the disk is full ({text[:100]})" if full else text[:500]
            whole = [s for s in self.steps() if s != step]
            safe = f"checkpoint {whole[-1]} is intact" if whole else "there is no earlier one"
            raise NotSaved(
                f"Step {step} could not be saved to {self.folder}: {reason}; {safe}. Make room "
                "and run the same command again to continue from there."
            ) from error
