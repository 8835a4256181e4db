"""A workdir belongs to one config. What produced its results is recorded beside them."""

import contextlib
import fcntl
import importlib.metadata
import logging
import os
import platform
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import jax

from l2l_jax.lib import config_dicts, files, hosts
from l2l_jax.lib.errors import ConfigError, not_saved, reason
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)

SHARED_SECONDS = 15.0  # after which a network file system shows what another host wrote

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "clu",
            "ml-collections", "scikit-learn", "safetensors", "pillow",
            "cykooz.resizer")  # fmt: skip


def check_config_matches(
    folder: Path, config: Mapping[str, Any], complete: Callable[[Any], Any] = dict
) -> None:
    """Checks that the workdir is new, or was made with an equal config.

    complete: adds to the recorded config the defaults that it does not name. Settings that change
    no result, such as runtime.threads, may differ. ConfigError names the settings that differ, or
    says why the folder is no workdir.
    """
    if "://" in str(folder) or re.match(r"\w{2,}:/", str(folder)):
        raise ConfigError(
            f"{folder} is not a local folder. A workdir must be in a file system that every "
            "process sees: mount the bucket (gcsfuse, s3fs), or copy the workdir there after the "
            "run."
        )
    workdir = Workdir(folder)
    if not _has_config(workdir):
        return
    there, here = (
        config_dicts.leaves(config_dicts.decisive(files.as_json(each)))
        for each in (complete(workdir.read_config()), config)
    )
    keys = sorted(there | here)
    changed = [key for key in keys if there.get(key) != here.get(key)]
    if changed:
        lines = [
            f"  {key}: {there.get(key)!r} there, {here.get(key)!r} here" for key in changed[:5]
        ]
        raise ConfigError(
            f"{folder} belongs to another config ({len(changed)} values differ):\n"
            + "\n".join(lines)
            + "\nUse another --workdir, or the config it was made with."
        )


def _has_config(workdir: Workdir) -> bool:
    """Whether the folder holds a run; False if it is new. ConfigError if it cannot be a workdir."""
    folder = workdir.folder
    try:
        workdir.check_kinds()
        if workdir.config.exists():
            return True
        others = sorted(path.name for path in folder.glob("[!.]*")) if folder.is_dir() else []
    except OSError as error:  # such as a path that is too long, or that may not be read
        raise ConfigError(
            f"{folder} cannot be a workdir: {reason(error)}. Use another --workdir."
        ) from error
    if workdir.versions.name in others:
        raise ConfigError(
            f"{workdir.config} is missing. Restore it from a copy, or use another --workdir."
        )
    if others:
        named = ", ".join(others[:5])
        raise ConfigError(
            f"{folder} is not empty and holds no run ({named}). Use another --workdir."
        )
    return False


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Locks the workdir during the block. ConfigError if another launch holds the lock.

    ConfigError, too, if not all processes see the same folder; NotSaved if it cannot be written.
    A file system without locks only gives a warning.
    """
    with contextlib.ExitStack() as stack:
        held_by_other, path, file = False, Workdir(folder).lock, None
        with hosts.fail_together():
            if hosts.is_main():
                file = stack.enter_context(_created(path))
        if file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held_by_other = True
            except OSError as error:  # some network file systems do not support locks
                log.warning(
                    "%s cannot be locked (%s); make sure that no other process works in it",
                    *(folder, reason(error)),
                )
        if hosts.from_main(int(held_by_other)):
            raise ConfigError(
                f"Another process is working in {folder}; wait for it, or use another --workdir."
            )
        _check_shared(path, file)
        yield


def _check_shared(path: Path, file: IO[str] | None) -> None:
    """ConfigError unless all processes read what process 0 writes into the file, the lock."""
    if hosts.single_process():
        return
    token = hosts.json_from_main(secrets.token_hex())
    if file:
        file.write(token)
        file.flush()
        os.fsync(file.fileno())
    hosts.barrier("the lock is written")
    end, seen = time.monotonic() + SHARED_SECONDS, False
    while not seen and time.monotonic() < end:
        with contextlib.suppress(OSError):
            seen = path.read_text() == token
        time.sleep(0 if seen else 0.5)
    if apart := hosts.ranks_where(not seen):
        raise ConfigError(
            f"Processes {apart} do not see what process 0 writes to {path.parent}: the workdir has "
            "to be one folder that all hosts share, such as NFS or a mounted bucket."
        )


def _created(path: Path) -> IO[str]:
    """The file, opened for writing. NotSaved if that is impossible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w")
    except OSError as error:
        raise not_saved(path, error) from error


def claim(folder: Path, config: Mapping[str, Any], original: Mapping[str, Any] | None) -> None:
    """Makes the folder the workdir of this config: records config, original and versions.

    original: metadata of config.weights, at least {"digest"}; None if a phase makes the original.
    """
    workdir = Workdir(folder)
    if hosts.is_main():
        for unfinished in folder.rglob(f".*{files.TEMPORARY}"):  # of a killed process
            files.remove(unfinished)
        if not workdir.config.exists():
            files.write_json(workdir.config, files.as_json(config))
    if original:
        _record_weights(workdir.original, {"weights": config["weights"], **original})
    _record_versions(workdir)


def record_reference(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Records {"weights", "digest"} of the retrained model, unless the workdir has a record."""
    _record_weights(Workdir(folder).reference, metadata)


def _record_weights(path: Path, metadata: Mapping[str, Any]) -> None:
    if hosts.is_main() and not path.exists():
        if any(Workdir(path.parent).checkpoints("").glob("*/[0-9]*")):
            log.warning("%s is missing: it is recorded again, from %s", path, metadata["weights"])
        files.write_json(path, dict(metadata))


def check_original(folder: Path, digest: str) -> None:
    """ConfigError if the workdir started from an original with another digest."""
    _check_digest(Workdir(folder).read_original(), folder, digest)


def check_reference(folder: Path, digest: str) -> None:
    """ConfigError if the workdir started with a retrained model with another digest."""
    _check_digest(Workdir(folder).read_reference(), folder, digest)


def _check_digest(recorded: Mapping[str, Any], folder: Path, digest: str) -> None:
    if recorded and recorded["digest"] != digest:
        raise ConfigError(
            f"{recorded['weights']} is not what {folder} began with: its digest is {digest[:16]}, "
            f"it was {recorded['digest'][:16]}. Restore the file, or start in another workdir."
        )


def versions() -> dict[str, Any]:
    """The code, packages and devices of this launch, as recorded in versions.json."""
    devices = jax.devices()
    return {
        "git": _git(),
        "code": files.code_digest(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
    }


def _record_versions(workdir: Workdir) -> None:
    """Writes versions.json: the first launch, and each later one that differs from the one before.

    Logs the devices and packages on every process.
    """
    now = versions()
    log.info("%s, %s process(es), %s", now["devices"], now["processes"], now["packages"])
    if not hosts.is_main():
        return
    first = workdir.read_versions()
    if not first:
        if any(workdir.checkpoints("").glob("*/[0-9]*")):
            log.warning("%s is missing: what made the run so far is not known", workdir.versions)
        files.write_json(workdir.versions, now | {"continued_with": []})
        return
    last = (first["continued_with"] or [first])[-1]
    changed = [key for key in now if now[key] != last.get(key)]
    if changed:
        log.warning("this launch differs from the one before in: %s", ", ".join(changed))
        first["continued_with"].append(now)
        files.write_json(workdir.versions, first)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _git() -> str:
    """The commit of this checkout, with "+changes" if files differ from it; "" outside of one."""
    here = Path(__file__).parent

    def git(*args: str) -> str:
        command = ["git", "-C", str(here), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails in an unrelated repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return ""
