"""A workdir belongs to one config for ever; what made it is written down beside the results."""

import contextlib
import fcntl
import importlib.metadata
import logging
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from l2l_jax.lib import config_dicts, files, hosts
from l2l_jax.lib.errors import ConfigError, did_you_mean

log = logging.getLogger(__name__)

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "clu",
            "ml-collections", "scikit-learn", "safetensors", "pillow",
            "cykooz.resizer")  # fmt: skip


def check(workdir: Path, config: Mapping[str, Any]) -> None:
    """ConfigError if the workdir belongs to another config, naming what differs, or to no run."""
    if "://" in str(workdir) or re.match(r"\w{2,}:/", str(workdir)):
        raise ConfigError(
            f"{workdir} is no folder. A workdir lies in a file system that every process sees; "
            "mount the bucket (gcsfuse, s3fs), or copy the folder there afterwards."
        )
    path = workdir / "config.json"
    if not path.exists():
        others = list(workdir.glob("[!.]*")) if workdir.is_dir() else []
        if others:
            named = ", ".join(sorted(other.name for other in others)[:5])
            raise ConfigError(
                f"{workdir} is not empty and holds no run ({named}). Use another --workdir."
            )
        return
    there, here = (
        config_dicts.leaves(config_dicts.decisive(c))
        for c in (config_of(workdir), files.as_json(config))
    )
    keys = sorted(there | here)
    changed = [key for key in keys if there.get(key) != here.get(key)]
    if changed:
        lines = [
            f"  {key}: {there.get(key)!r} there, {here.get(key)!r} here" for key in changed[:5]
        ]
        raise ConfigError(
            f"{workdir} belongs to another config ({len(changed)} values differ):\n"
            + "\n".join(lines)
            + "\nUse another --workdir, or the config it was made with."
        )


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps other launches out of the workdir while this one works in it."""
    with contextlib.ExitStack() as stack:
        taken = False
        if hosts.is_main():
            workdir.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((workdir / ".lock").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                taken = True
            except OSError as error:  # some network file systems know no locks
                log.warning(
                    "%s cannot be locked (%s); see that nothing else runs in it", workdir, error
                )
        if hosts.from_main(int(taken)):
            raise ConfigError(
                f"Another process is working in {workdir}; wait for it, or use another --workdir."
            )
        yield


def claim(workdir: Path, config: Mapping[str, Any], original: Mapping[str, Any] | None) -> None:
    """Writes down the config, the digest of the original, and what this launch runs with.

    original: what is known about config.weights, its digest at least.
    """
    if hosts.is_main():
        for left_over in workdir.rglob(".*.tmp"):  # by a process that was killed while writing
            left_over.unlink()
        if not (workdir / "config.json").exists():
            files.write_json(workdir / "config.json", files.as_json(config))
    if original:
        note_original(workdir, {"weights": config["weights"], **original})
    _note_versions(workdir)


def note_original(workdir: Path, about: Mapping[str, Any], name: str = "original.json") -> None:
    """Writes down which weights, and their digest, the workdir began with."""
    if hosts.is_main() and not (workdir / name).exists():
        files.write_json(workdir / name, dict(about))


def check_original(workdir: Path, digest: str, name: str = "original.json") -> None:
    """ConfigError if the weights the workdir began with have changed since."""
    path = workdir / name
    began = files.read_json(path) if path.exists() else {"digest": digest}
    if began["digest"] != digest:
        raise ConfigError(
            f"{began['weights']} is not what {workdir} began with: its digest is {digest[:16]}, it "
            f"was {began['digest'][:16]}. Bring the file back, or start in another workdir."
        )


def config_of(workdir: Path) -> dict[str, Any]:
    """The config a workdir was made with, as plain dicts. ConfigError if it holds no run."""
    path = workdir / "config.json"
    if not path.is_file():
        near = [p.parent.name for p in workdir.parent.glob("*/config.json")]
        raise ConfigError(
            f"{workdir} holds no run (no config.json).{did_you_mean(workdir.name, near)} "
            f"Runs beside it: {', '.join(sorted(near)[:10]) or 'none'}."
        )
    return files.read_json(path)


def versions() -> dict[str, Any]:
    """Code, packages and devices of this launch."""
    devices = jax.devices()
    return {
        "git": _git(),
        "code": files.code_digest(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
    }


def _note_versions(workdir: Path) -> None:
    """versions.json: the first launch, and every later one that differs from the last."""
    path, now = workdir / "versions.json", versions()
    log.info("%s, %s process(es), %s", now["devices"], now["processes"], now["packages"])
    if not hosts.is_main():
        return
    if not path.exists():
        files.write_json(path, now | {"continued_with": []})
        return
    first = files.read_json(path)
    last = (first["continued_with"] or [first])[-1]
    changed = [key for key in now if now[key] != last.get(key)]
    if changed:
        log.warning("continued with another %s than before", ", ".join(changed))
        first["continued_with"].append(now)
        files.write_json(path, first)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _git() -> str:
    """The commit of this checkout, '+changes' if files differ from it, '' outside one."""
    here = Path(__file__).parent

    def ask(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", Path(__file__).name)  # not some repository around it
        return ask("rev-parse", "HEAD") + ("+changes" if ask("status", "--porcelain") else "")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return ""
