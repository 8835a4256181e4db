"""Keeps compiled programs for the next run on the same machine, by JAX's compilation cache."""

import contextlib
import logging
import os
from pathlib import Path

import jax

from l2l_jax.lib import files
from l2l_jax.lib.errors import reason

log = logging.getLogger(__name__)

MIN_SECONDS = 0.1  # of compiling; programs that take less are compiled again
MAX_BYTES = 4 * 2**30  # of all programs in the folder


def keep() -> None:
    """Keeps programs in the folder `programs` of the cache; it needs to be called before compiling.

    What the user has chosen by JAX_COMPILATION_CACHE_DIR stays. If the folder cannot be written, a
    warning is logged and nothing is kept. Beyond MAX_BYTES the programs that were used the longest
    time ago are removed.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    folder = files.cache_dir() / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "it cannot be written", str(folder))
        _shrink(folder)
    except OSError as error:
        log.warning("compiled programs are not kept for the next run: %s", reason(error))
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)


def _shrink(folder: Path) -> None:
    """Removes the programs that were used the longest time ago, until MAX_BYTES hold the rest."""
    size, found = 0, []
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # another process removes programs, too
            found.append((entry.stat().st_atime, entry.stat().st_size, Path(entry.path)))
    for _, own, path in sorted(found, reverse=True):
        size += own
        if size > MAX_BYTES:
            path.unlink(missing_ok=True)
