"""Reads files that may be damaged or hostile: regular files only, and never more than a limit.

A named pipe, a device or a socket could block a reader for ever or never end. Sizes that a file
states about itself are compared with the real size of the file before memory is reserved.
"""

import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from l2l_jax.lib.errors import UserError

MAX_JSON_BYTES = 1 << 30  # a split of all 1.8 million images of Places365 has 0.1 GB
MAX_TEXT_BYTES = 1 << 28  # lists of images and labels; those of ImageNet have 50 MB
MAX_ARRAY_BYTES = 1 << 32  # of all arrays of an .npz file together, unpacked

KINDS: dict[Callable[[int], bool], str] = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


class Unreadable(UserError, ValueError):
    """A file is not read because of its kind, its size or its form; the message says which."""


def open_regular(path: str | Path) -> io.FileIO:
    """The file, open for reading. Unreadable if it is not a regular file; OSError as `open`.

    Opening does not block, not even for a named pipe that nobody writes to.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno in (6, 19):  # ENXIO, ENODEV: a socket, or a device without a driver
            raise Unreadable(f"{path} is a socket or a device, not a regular file") from None
        raise
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = next((name for test, name in KINDS.items() if test(mode)), "of an unknown kind")
        raise Unreadable(f"{path} is {kind}, not a regular file")
    return io.FileIO(handle, "rb")


def read(path: str | Path, limit: int) -> bytes:
    """The content of a regular file. Unreadable if it is another kind, or larger than `limit`."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise Unreadable(f"{path} has {size:,} bytes; at most {limit:,} are read")
        content = file.read(size)  # one call is fastest, and nearly always enough
        while len(content) < size and (more := file.read(size - len(content))):
            content += more
        return content


def read_text(path: str | Path) -> str:
    """The content of a UTF-8 text file. Unreadable if it is too large or no UTF-8."""
    content = read(path, MAX_TEXT_BYTES)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path} is no UTF-8 text (byte {error.start:,})") from None


def parse_json(content: bytes | str, name: str | Path) -> Any:
    """The value of a JSON text. Unreadable, with `name`, if it is no JSON or nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError:
        raise Unreadable(f"{name} is nested too deeply for a JSON file") from None
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise Unreadable(f"{name} is no readable JSON file ({error})") from None


def read_npz(path: str | Path, limit: int = MAX_ARRAY_BYTES) -> dict[str, np.ndarray]:
    """{name: array} of an .npz file; see npz_of."""
    with open_regular(path) as file:
        return npz_of(file, path, limit)


def npz_of(
    content: BinaryIO | bytes | memoryview, name: str | Path, limit: int = MAX_ARRAY_BYTES
) -> dict[str, np.ndarray]:
    """{name: array} of the content of an .npz file; no object in it is unpickled.

    Unreadable, with `name`, if it is no such file, or if its arrays would take more than `limit`
    bytes.
    """
    file: Any = io.BytesIO(content) if isinstance(content, bytes | memoryview) else content
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > limit:
            raise Unreadable(f"{name} would unpack to {size:,} bytes; at most {limit:,} are read")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return {key: _checked(arrays, key) for key in arrays.files}
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise many types on damaged files
        raise Unreadable(
            f"{name} is no readable .npz file ({type(error).__name__}: {error})"
        ) from error


def _checked(arrays: Any, name: str) -> np.ndarray:
    """One array, after comparing the size that its header states with the bytes that are there."""
    member = next(m for m in (name, f"{name}.npy") if m in arrays.zip.namelist())
    stored = arrays.zip.getinfo(member).file_size
    with arrays.zip.open(member) as file:
        version = np.lib.format.read_magic(file)
        reader = {(1, 0): "read_array_header_1_0"}.get(version, "read_array_header_2_0")
        shape, _, dtype = getattr(np.lib.format, reader)(file)
    if dtype.hasobject:
        raise Unreadable(f"the array {name} holds Python objects")
    if np.prod(shape, dtype=float) * dtype.itemsize > stored:
        raise Unreadable(f"the array {name} states the shape {shape}, more than its {stored} bytes")
    return arrays[name]
