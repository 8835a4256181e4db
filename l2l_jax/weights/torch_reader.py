"""Reads PyTorch checkpoint files without PyTorch. Nothing in a file can execute.

A checkpoint is a pickle (weights/torch_pickle.py) plus raw storages. Both formats are read: the zip
archive (torch >= 1.6) and the older stream of pickles.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

from l2l_jax.weights.torch_pickle import Refused, Storage, Storages, Unpickler, resolve

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused("it is a zip archive, but not one written by torch.save")
        root = pickles[0].removesuffix("data.pkl")

        def read(name: str, size: int | None = None) -> bytes:
            info = members.get(root + name)
            if info is None or info.compress_type != zipfile.ZIP_STORED:
                raise Refused(f"{name} is missing or packed, which torch.save never does")
            if size is not None and info.file_size != size:
                raise Refused(f"{name} has another size than stated")
            return archive.read(info)

        if root + "byteorder" in members and read("byteorder") != b"little":
            raise Refused("its numbers are big-endian")
        storages = Storages()

        def storage(pid: Any) -> Storage:
            return storages.get(pid, lambda key, size: read(f"data/{key}", size))

        return resolve(Unpickler(io.BytesIO(read("data.pkl")), storage).load(), {})


def _read_legacy(path: Path) -> Any:
    storages = Storages()
    with path.open("rb") as file:

        def load() -> Any:
            return Unpickler(file, lambda pid: storages.get(pid, lambda *_: None)).load()

        if load() != LEGACY_MAGIC:
            raise Refused("it does not begin like a PyTorch file")
        protocol, system = load(), load()
        if protocol != 1001 or not system.get("little_endian", False):
            raise Refused(f"its protocol is {protocol!r} on {system!r}")
        value = load()
        for key in load():
            storages.fill(key, int.from_bytes(file.read(8), "little"), file)
        return resolve(value, {})


def read(path: str | Path) -> Any:
    """The object in the file, tensors as NumPy arrays. Raises Refused (says why) or OSError."""
    path = Path(path)
    try:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except Refused as error:
        raise Refused(f"{path} is not read: {error}.") from None
    except OSError:
        raise
    except Exception as error:  # a damaged or foreign file can fail anywhere in the parser
        raise Refused(f"{path} is not a readable PyTorch file: {error!r}.") from error
