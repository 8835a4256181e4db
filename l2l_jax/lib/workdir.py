"""A workdir belongs to one config for ever; what made it is written down beside the results."""

import importlib.metadata
import logging
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from l2l_jax.lib import files, trees
from l2l_jax.lib.errors import ConfigError, did_you_mean

log = logging.getLogger(__name__)

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "clu",
            "ml-collections", "scikit-learn", "safetensors", "pillow")  # fmt: skip
FREE = "runtime"  # the section of a config that changes no result and may differ between launches


def check(workdir: Path, config: Mapping[str, Any]) -> None:
    """ConfigError if the workdir belongs to another config, naming what differs, or to no run."""
    path = workdir / "config.json"
    if not path.exists():
        others = [p.name for p in workdir.iterdir()] if workdir.is_dir() else []
        if others:
            raise ConfigError(
                f"{workdir} is not empty and holds no run ({', '.join(sorted(others)[:5])}). "
                "Use another --workdir."
            )
        return
    there = trees.flatten(files.read_json(path))
    here = trees.flatten(files.as_json(config))
    keys = [key for key in sorted(there | here) if not key.startswith(f"{FREE}/")]
    changed = [key for key in keys if there.get(key) != here.get(key)]
    if changed:
        lines = [
            f"  {key.replace('/', '.')}: {there.get(key)!r} there, {here.get(key)!r} here"
            for key in changed[:5]
        ]
        raise ConfigError(
            f"{workdir} belongs to another config ({len(changed)} values differ):\n"
            + "\n".join(lines)
            + "\nUse another --workdir, or the config it was made with."
        )


def claim(workdir: Path, config: Mapping[str, Any]) -> None:
    """Writes the config down (process 0) and notes which code and packages this launch runs."""
    path = workdir / "config.json"
    if jax.process_index() == 0 and not path.exists():
        files.write_json(path, files.as_json(config))
    _note_versions(workdir)


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
    if jax.process_index() != 0:
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
