"""Atomic writes, JSON with digests, digests of files, and the cache folder.

A JSON object of this project has the SHA-256 of all its other values under SEAL, its last key, and
a JSON line has their CRC-32 under LINE_SEAL. Both are checked and removed when they are read. A
file without them is read unchecked.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from l2l_jax.lib import bounded
from l2l_jax.lib.errors import Damaged, UserError, not_saved, reason

log = logging.getLogger(__name__)

SEAL = "sha256_of_content"
LINE_SEAL = "crc32"
TEMPORARY = ".l2l.tmp"  # what the names of incomplete files end with; they begin with a dot
STALE_SECONDS = 24 * 3600  # an incomplete file of this age belongs to no living process
MAX_NAME = 100  # characters of a file's name that the name of its temporary file repeats
_swept: set[Path] = set()  # folders that this process has swept


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file, also for reading; it is renamed to `path` once complete and on disk.

    After an error inside the block the temporary file is gone and `path` is unchanged. NotSaved for
    an OSError. What killed processes left in the folder is removed first.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:
            _swept.add(path.parent)
            sweep(path.parent)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name[:MAX_NAME]}.", suffix=TEMPORARY
        )
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and not isinstance(error, UserError):
            raise not_saved(path, error) from error
        raise


def sweep(folder: Path, seconds: float = STALE_SECONDS) -> None:
    """Removes what killed processes left in a folder: temporary files not written for `seconds`."""
    with contextlib.suppress(OSError):  # another process may remove them at the same time
        for entry in os.scandir(folder):
            if entry.name.startswith(".") and entry.name.endswith(TEMPORARY):
                status = entry.stat(follow_symlinks=False)
                if time.time() - status.st_mtime >= seconds:
                    remove(Path(entry.path))


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes indented UTF-8 JSON, atomically; an object gets the digest of its content."""
    if isinstance(value, dict):
        value = as_json(value)
        value[SEAL] = _digest(value)
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def as_json(value: Any) -> Any:
    """The value after a round trip through JSON: tuples become lists, keys become strings."""
    return json.loads(json.dumps(value))


def read_json(path: Path, remedy: str = "Restore it from a copy.") -> Any:
    """The content of a JSON file. FileNotFoundError if it is missing.

    Damaged, with what to do (`remedy`), if it cannot be read or does not fit its digest.
    """
    try:
        value = json.loads(bounded.read(path, bounded.MAX_JSON_BYTES).decode())
    except FileNotFoundError:
        raise
    except (bounded.Unreadable, OSError) as error:
        raise Damaged(f"{path} cannot be read: {reason(error)}. {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is cut off or damaged: it is no JSON. {remedy}") from error
    digest = value.pop(SEAL, None) if isinstance(value, dict) else None
    if digest is not None and digest != _digest(value):
        raise Damaged(
            f"{path} does not fit the digest in it: it is damaged, or was edited. {remedy}"
        )
    return value


def read_object(path: Path, remedy: str = "Restore it from a copy.") -> dict[str, Any]:
    """As read_json, of a file that holds a JSON object; Damaged if it holds something else."""
    value = read_json(path, remedy)
    if not isinstance(value, dict):
        raise Damaged(f"{path} holds no JSON object. {remedy}")
    return value


def json_line(record: dict[str, Any]) -> bytes:
    """One record of a file of JSON lines, with its check sum and a newline."""
    text = json.dumps(record)
    return json.dumps(record | {LINE_SEAL: zlib.crc32(text.encode())}).encode() + b"\n"


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the records of a file of JSON lines; none if the file is missing.

    Damaged lines are left out, with one line in the log; the last line may be incomplete after a
    kill. Damaged if the file cannot be read.
    """
    try:
        lines = bounded.read(path, bounded.MAX_JSON_BYTES).splitlines(keepends=True)
    except FileNotFoundError:
        return
    except (bounded.Unreadable, OSError) as error:
        raise Damaged(
            f"{path} cannot be read: {reason(error)}. Restore it from a copy, or remove it."
        ) from error
    records = [_record(line) for line in lines]
    wrong = [number for number, record in enumerate(records, 1) if record is None]
    if wrong and not (wrong == [len(lines)] and not lines[-1].endswith(b"\n")):
        log.warning(
            "%s: %d of %d lines are damaged and are left out, the first is line %d",
            *(path, len(wrong), len(lines), wrong[0]),
        )
    yield from (record for record in records if record is not None)


def _record(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None if it is no JSON object, or does not fit its check sum."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    check = record.pop(LINE_SEAL, None)
    fits = check is None or check == zlib.crc32(json.dumps(record).encode())
    return record if fits else None


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
