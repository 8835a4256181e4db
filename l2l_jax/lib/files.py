"""Atomic writes of small files, JSON, digests, and the cache folder."""

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
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file for writing; it is renamed to `path` once it is complete and on disk.

    After an error inside the block the temporary file is gone and `path` is unchanged.
    """
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


def write_if_possible(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a cache file by write(file), atomically; logs a warning if that is impossible."""
    try:
        with atomic_write(path) as file:
            write(file)
    except OSError as error:
        log.warning("%s is not kept for the next run: %s", path, error)


def write_json(path: Path, value: Any) -> None:
    """Writes indented UTF-8 JSON, atomically."""
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")


def as_json(value: Any) -> Any:
    """The value after a round trip through JSON: tuples become lists, keys become strings."""
    return json.loads(json.dumps(value))


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the records of a file of JSON lines; none if the file is missing.

    Stops at a line that is no JSON: the last line may be incomplete after a kill.
    """
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return


def file_stamp(path: str | Path) -> str:
    """Path, size and modification time as text; equal stamps mean equal content."""
    status = os.stat(path)
    return f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"


def sha256(path: Path) -> str:
    """Hexadecimal digest of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_lines(lines: list[str]) -> str:
    """Hexadecimal sha256 of the lines, joined by newlines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def code_digest() -> str:
    """sha256 over every Python file of this package; identifies the code that made a result."""
    root = Path(__file__).parents[1]
    files = sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix())
    return digest_of_lines([f"{p.relative_to(root).as_posix()} {sha256(p)}" for p in files])


def cache_dir() -> Path:
    """The folder of files that can be made again: $L2L_CACHE, or ~/.cache/l2l_jax."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "l2l_jax"
    return Path(os.environ.get("L2L_CACHE", default)).expanduser()
