"""Reads PyTorch checkpoint files without PyTorch. Nothing in a file can execute.

A checkpoint is a pickle (weights/torch_pickle.py) plus raw storages. Both formats are read: the zip
archive (torch >= 1.6) and the older stream of pickles. A file cannot grow in memory: everything in
it together is at most as large as the file, its arrays at most MAX_COPIES times as large.
"""

import io
import os
import reprlib
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from l2l_jax.lib import bounded
from l2l_jax.weights.torch_pickle import Refused, Resolver, Storage, Storages, Unpickler

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_PICKLE_BYTES = 1 << 26  # names and shapes; those of CLIP's ViT-H/14 have 0.1 MB
MAX_COPIES = 4  # arrays that share a storage become copies of it
SPARE_BYTES = 1 << 20


def _read_zip(file: BinaryIO, size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused("it is a zip archive, but not one written by torch.save")
        if sum(info.file_size for info in members.values()) > size:
            raise Refused("its parts overlap: together they are larger than the file")
        root = pickles[0].removesuffix("data.pkl")

        def read(name: str, stated: int | None = None, limit: int = size) -> bytes:
            info = members.get(root + name)
            if info is None or info.compress_type != zipfile.ZIP_STORED:
                raise Refused(f"{name} is missing or packed, which torch.save never does")
            if stated is not None and info.file_size != stated:
                raise Refused(f"{name} has another size than stated")
            if info.file_size > limit:
                raise Refused(f"{name} has {info.file_size:,} bytes; at most {limit:,} are read")
            return archive.read(info)

        if root + "byteorder" in members and read("byteorder") != b"little":
            raise Refused("its numbers are big-endian")
        storages = Storages()

        def storage(pid: Any) -> Storage:
            return storages.get(pid, lambda key, stated: read(f"data/{key}", stated))

        body = io.BytesIO(read("data.pkl", limit=MAX_PICKLE_BYTES))
        return Resolver(MAX_COPIES * size + SPARE_BYTES)(Unpickler(body, storage).load())


def _read_legacy(file: BinaryIO, size: int) -> Any:
    storages = Storages()
    pickles = io.BytesIO(file.read(MAX_PICKLE_BYTES))

    def load() -> Any:
        return Unpickler(pickles, lambda pid: storages.get(pid, lambda *_: None)).load()

    if load() != LEGACY_MAGIC:
        raise Refused("it does not begin like a PyTorch file")
    protocol, system = load(), load()
    if protocol != 1001 or not isinstance(system, dict) or not system.get("little_endian", False):
        raise Refused(f"its protocol is {reprlib.repr(protocol)} on {reprlib.repr(system)}")
    value, keys = load(), load()
    file.seek(pickles.tell())
    for key in keys:
        storages.fill(key, int.from_bytes(file.read(8), "little"), file, size - file.tell())
    return Resolver(MAX_COPIES * size + SPARE_BYTES)(value)


def read(path: str | Path) -> Any:
    """The object in the file, tensors as NumPy arrays. Raises Refused (says why) or OSError."""
    path = Path(path)
    try:
        with bounded.open_regular(path) as raw, io.BufferedReader(raw) as file:
            size = os.fstat(file.fileno()).st_size
            return _read_zip(file, size) if zipfile.is_zipfile(file) else _legacy(file, size)
    except bounded.Unreadable as error:
        raise Refused(f"{error}.") from None
    except Refused as error:
        raise Refused(f"{path} is not read: {error}.") from None
    except OSError:
        raise
    except Exception as error:  # a damaged or foreign file can fail anywhere in the parser
        raise Refused(f"{path} is not a readable PyTorch file: {_short(error)}.") from error


def _legacy(file: BinaryIO, size: int) -> Any:
    file.seek(0)  # is_zipfile moved it
    return _read_legacy(file, size)


def _short(error: Exception) -> str:
    """The type and the message of an error; not the repr, which a hostile value could make huge."""
    words = next((word for word in error.args if isinstance(word, str)), "")
    return f"{type(error).__name__} {words[:200]}".strip()
