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

import numpy as np
import orbax.checkpoint as ocp

from l2l_jax.lib import files, hosts, trees
from l2l_jax.lib.errors import NotSaved, Unrestorable, is_full

log = logging.getLogger(__name__)

MOST = 64  # checkpoints that several processes can talk about


class Checkpoints:
    """The checkpoints of one phase, in workdir/checkpoints/<phase>/<step>.

    keep=None only reads: nothing is created, removed or renamed.
    """

    def __init__(self, folder: Path, keep: int | None = None):
        self.folder = folder.absolute()
        self._writes = keep is not None
        self._unsealed: int | None = None
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            cleanup_tmp_directories=self._writes,
            read_only=not self._writes,
            create=self._writes,
        )
        there = self._writes or self.folder.is_dir()
        self._manager = ocp.CheckpointManager(self.folder, options=options) if there else None

    def steps(self) -> list[int]:
        """Steps with a checkpoint, oldest first."""
        return sorted(self._manager.all_steps()) if self._manager else []

    def save(self, step: int, state: Any) -> None:
        """Starts writing; the arrays may be donated at once. NotSaved if the last save failed."""
        self.wait()
        with self._explained(step):
            free, needed = shutil.disk_usage(self.folder).free, trees.nbytes(state)
            if free < needed:  # orbax would find out halfway, and say so in a hundred tracebacks
                raise OSError(f"No space left: {needed:,} bytes are needed, {free:,} are free")
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)
        self._unsealed = step

    def wait(self) -> None:
        """Blocks until the last save is on disk, and seals it. NotSaved if that failed."""
        if self._unsealed is None:
            return
        step, self._unsealed = self._unsealed, None
        with self._explained(step):
            self._manager.wait_until_finished()
            if hosts.is_main():
                self._seal(step)

    def close(self) -> None:
        """Releases orbax's threads; a save under way is finished, a failure of it only logged."""
        try:
            if self._manager:
                self._manager.close()
        except Exception as error:  # whoever closes on the way out has a better error to show
            log.warning("the checkpoint under way was not written: %s", str(error)[:200])

    def restore(self, abstract: Any) -> Any | None:
        """The newest state that is whole, or None if there is no checkpoint at all.

        abstract: a tree of ShapeDtypeStructs with shardings. Damaged checkpoints newer than the one
        used are renamed, not removed. Unrestorable if none can be read.
        """
        steps = self.steps()
        whole = self._agreed([step for step in steps if self._is_whole(step)])
        for step in reversed(whole):
            try:
                state = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
            except Exception as error:  # whatever is wrong with it, the one before may be whole
                if not hosts.single_process():
                    raise
                log.warning(
                    "checkpoint %s is damaged: %s", self.folder / str(step), str(error)[:500]
                )
                continue
            self._put_aside([other for other in steps if other > step])
            return state
        if steps:
            raise Unrestorable(
                f"None of the checkpoints {steps} in {self.folder} can be read; the reasons are in "
                "the log above. Remove that folder to start the phase again."
            )
        return None

    def _agreed(self, steps: list[int]) -> list[int]:
        """The first process's list: all processes restore the same step."""
        padded = np.full(MOST, -1)
        padded[: len(steps[-MOST:])] = steps[-MOST:]
        return [int(step) for step in hosts.from_main(padded) if step >= 0]

    def _put_aside(self, steps: list[int]) -> None:
        if not steps or not self._writes:
            return
        for step in steps:
            taken = len(list(self.folder.glob(f"damaged-{step}*")))
            aside = self.folder / (f"damaged-{step}" + (f"-{taken}" if taken else ""))
            if hosts.is_main():
                (self.folder / str(step)).rename(aside)
                self._seal_of(step).unlink(missing_ok=True)
            log.warning("going back to the checkpoint before it; it is kept as %s", aside)
        hosts.barrier("damaged checkpoints are put aside")
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

    def _is_whole(self, step: int) -> bool:
        """One whose writer was killed before sealing it has no seal; orbax had committed it."""
        if not hosts.is_main() or not self._seal_of(step).exists():
            return True
        want, got = files.read_json(self._seal_of(step)), self._digests(step)
        wrong = sorted(name for name in want | got if want.get(name) != got.get(name))
        if wrong:
            reason = f"{len(wrong)} of its files changed or vanished, such as {wrong[0]}"
            log.warning("checkpoint %s is damaged: %s", self.folder / str(step), reason)
        return not wrong

    @contextlib.contextmanager
    def _explained(self, step: int) -> Iterator[None]:
        """Turns the many errors of a failed write into one that says what is safe."""
        try:
            yield
        except Exception as error:
            reason = (
                f"the disk is full ({str(error)[:100]})" if is_full(error) else str(error)[:500]
            )
            whole = [s for s in self.steps() if s != step]
            safe = f"checkpoint {whole[-1]} is intact" if whole else "there is no earlier one"
            raise NotSaved(
                f"Step {step} could not be saved to {self.folder}: {reason}; {safe}. Make room "
                "and run the same command again to continue from there."
            ) from error
