"""Small files that are either whole or absent, and the digests that name things."""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

log = logging.getLogger(__name__)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes the name `path` only once it is complete and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def keep(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes what can be made again; where that is not possible, a warning says so."""
    try:
        with replacing(path) as file:
            write(file)
    except OSError as error:
        log.warning("%s is not kept for the next run: %s", path, error)


def write_json(path: Path, value: Any) -> None:
    """Indented UTF-8 JSON, atomically."""
    with replacing(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")


def as_json(value: Any) -> Any:
    """What a value looks like after a round trip through JSON: tuples as lists, and so on."""
    return json.loads(json.dumps(value))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines; a last line cut off by a kill is left out."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return


def stamp(path: str | Path) -> str:
    """Path, size and time of change: two that are equal tell of the same content."""
    there = os.stat(path)
    return f"{os.path.abspath(path)} {there.st_size} {there.st_mtime_ns}"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_lines(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def code_digest() -> str:
    """sha256 over every Python file of this package: which code made a result."""
    root = Path(__file__).parents[1]
    files = sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix())
    return digest_of_lines([f"{p.relative_to(root).as_posix()} {sha256(p)}" for p in files])


def cache_dir() -> Path:
    """Where things live that can be made again: $L2L_CACHE, or ~/.cache/l2l_jax."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "l2l_jax"
    return Path(os.environ.get("L2L_CACHE", default)).expanduser()
