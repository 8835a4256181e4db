"""Cache entries that carry a digest of their content, which is checked when they are read.

An entry is its content, then TAG, then the SHA-256 of its key and content. Readers of .npy and .npz
files ignore these last bytes. The key says what the entry holds, so that the file of another entry
under this name fails as well.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from l2l_jax.lib import bounded, files
from l2l_jax.lib.errors import reason

log = logging.getLogger(__name__)

CANNOT_READ = "%s cannot be read (%s); it is made again"
TAG = b"\nsha256\n"
SIZE = len(TAG) + hashlib.sha256().digest_size  # bytes that a cache entry has after its content
MAX_BYTES = 1 << 36  # of an entry that is read at once
BLOCK = 1 << 20  # bytes that are read at a time


def write(path: Path, key: str, write_content: Callable[[BinaryIO], Any]) -> None:
    """Writes a cache entry atomically; write_content(file) writes its content. NotSaved if not."""
    with files.atomic_write(path) as file:
        write_content(file)
        length = file.seek(0, 2)
        digest = _digest_of_file(file, key, length)
        file.seek(length)
        file.write(TAG + digest)


def write_if_possible(path: Path, key: str, write_content: Callable[[BinaryIO], Any]) -> None:
    """As `write`, but logs a warning if it is impossible: the cache is only not kept."""
    try:
        write(path, key, write_content)
    except OSError as error:
        log.warning("%s is not kept for the next run: %s", path, reason(error))


def read(path: Path, key: str) -> memoryview | None:
    """The content of a cache entry. None if there is no file, or, with a log line, if it fails."""
    try:
        data = bounded.read(path, MAX_BYTES)
    except bounded.Unreadable as error:
        log.warning(CANNOT_READ, path, error)
        return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        log.warning(CANNOT_READ, path, reason(error))
        return None
    if (content := opened(data, key)) is None:
        log_damage(path)
    return content


def opened(data: bytes, key: str) -> memoryview | None:
    """The content of a cache entry from all bytes of its file; None if it fails its digest."""
    content = memoryview(data)[:-SIZE]
    total = _started(key)
    total.update(content)
    return content if data[len(content) :] == TAG + total.digest() else None


def check(path: Path, key: str) -> bool:
    """Whether there is a cache entry and it fits its digest; one log line if it does not fit."""
    try:
        with path.open("rb") as file:
            length = file.seek(0, 2) - SIZE
            fits = length >= 0 and _fits(file, key, length)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        log.warning(CANNOT_READ, path, reason(error))
        return False
    if not fits:
        log_damage(path)
    return fits


def log_damage(path: Path) -> None:
    """The log line for an entry that fails its digest."""
    log.warning("%s does not fit its digest: it is damaged or was edited; it is made again", path)


def _fits(file: BinaryIO, key: str, length: int) -> bool:
    """Whether the file ends with the digest of its first `length` bytes."""
    digest = _digest_of_file(file, key, length)
    return file.read() == TAG + digest


def _digest_of_file(file: BinaryIO, key: str, length: int) -> bytes:
    """SHA-256 of the key and the first `length` bytes of the file, which is then behind them."""
    total, left = _started(key), length
    file.seek(0)
    while left and (block := file.read(min(BLOCK, left))):
        total.update(block)
        left -= len(block)
    return total.digest()


def _started(key: str) -> Any:
    return hashlib.sha256(f"{key}\n".encode())
