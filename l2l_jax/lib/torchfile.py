"""PyTorch checkpoint files, read and written without PyTorch. Nothing in a file can execute.

A checkpoint is a pickle plus raw storages. The reader unpickles through an allow-list of a dozen
names, all of which stand for inert code of this file; anything else is refused by name. Both forms
are read: the zip archive (torch >= 1.6) and the older stream of pickles. Written: the zip archive.
"""

import argparse
import collections
import dataclasses
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from l2l_jax.lib.errors import Explained

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


class Refused(Explained, pickle.UnpicklingError):
    """The file asks for something outside the allow-list, or contradicts itself."""


@dataclasses.dataclass
class _Storage:
    dtype: np.dtype
    size: int
    data: np.ndarray | None = None


@dataclasses.dataclass
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple
    stride: tuple

    def array(self) -> np.ndarray:
        """The values, copied; the bounds are checked before any memory is touched."""
        sizes = (self.offset, *self.shape, *self.stride)
        if any(type(n) is not int or n < 0 for n in sizes) or len(self.shape) != len(self.stride):
            raise Refused("a tensor with impossible sizes")
        steps = [(n - 1) * t for n, t in zip(self.shape, self.stride, strict=True)]
        needed = 0 if 0 in self.shape else 1 + sum(steps)
        if self.storage.data is None or self.offset + needed > self.storage.size:
            raise Refused("a tensor that reaches outside its storage")
        strides = [t * self.storage.dtype.itemsize for t in self.stride]
        start = self.storage.data[self.offset :]
        return np.lib.stride_tricks.as_strided(start, self.shape, strides).copy()


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise Refused("a tensor without a storage")
    return _Tensor(storage, offset, tuple(shape), tuple(stride))


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch", "Size"): tuple,
    ("torch", "device"): lambda *about: ":".join(map(str, about)),
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("argparse", "Namespace"): argparse.Namespace,
    **{("torch", name): name for name in STORAGES},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, storage: Callable[[Any], _Storage]):
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise Refused(f"it asks for {module}.{name}, which a weights file has no use for")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        return self._storage(pid)


def _resolve(value: Any) -> Any:
    """Tensors become arrays, everywhere in nested dicts, lists and tuples."""
    if isinstance(value, _Tensor):
        return value.array()
    if isinstance(value, Mapping):
        return {key: _resolve(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_resolve(item) for item in value)
    return value


def _describe(pid: Any) -> tuple[np.dtype, str, int]:
    kind, dtype, key, _, size, *_ = pid
    if kind != "storage" or dtype not in STORAGES or type(size) is not int or size < 0:
        raise Refused(f"a storage it describes as {pid!r}")
    return STORAGES[dtype], str(key), size


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused("it is a zip archive, but not one that torch.save made")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise Refused("its numbers are big-endian")
        storages: dict[str, _Storage] = {}

        def storage(pid: Any) -> _Storage:
            dtype, key, size = _describe(pid)
            if key not in storages:
                member = f"{root}data/{key}"
                if (
                    member not in names
                    or archive.getinfo(member).file_size != size * dtype.itemsize
                ):
                    raise Refused(f"storage {key} is missing or has another size than stated")
                data = np.frombuffer(archive.read(member), dtype)
                storages[key] = _Storage(dtype, size, data)
            return storages[key]

        return _resolve(_Unpickler(io.BytesIO(archive.read(pickles[0])), storage).load())


def _read_legacy(path: Path) -> Any:
    with path.open("rb") as file:
        none = _refuse_storage
        if _Unpickler(file, none).load() != LEGACY_MAGIC:
            raise Refused("it does not begin like a PyTorch file")
        protocol, system = _Unpickler(file, none).load(), _Unpickler(file, none).load()
        if protocol != 1001 or not system.get("little_endian", False):
            raise Refused(f"its protocol is {protocol!r} on {system!r}")
        storages: dict[str, _Storage] = {}

        def storage(pid: Any) -> _Storage:
            dtype, key, size = _describe(pid)
            if pid[5:] not in ((), (None,)):
                raise Refused("it shares storages in a way no longer in use")
            return storages.setdefault(key, _Storage(dtype, size))

        value = _Unpickler(file, storage).load()
        for key in _Unpickler(file, none).load():
            target = storages[key]
            if int.from_bytes(file.read(8), "little") != target.size:
                raise Refused(f"storage {key} has another size than stated")
            raw = file.read(target.size * target.dtype.itemsize)
            target.data = np.frombuffer(raw, target.dtype)
        return _resolve(value)


def _refuse_storage(pid: Any) -> _Storage:
    raise Refused(f"an unexpected storage {pid!r}")


def read(path: str | Path) -> Any:
    """The object in the file, tensors as NumPy arrays. Raises Refused (naming why) or OSError."""
    path = Path(path)
    try:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except (Refused, OSError) as error:
        if isinstance(error, OSError):
            raise
        raise Refused(f"{path} is not read: {error}.") from None
    except Exception as error:  # a damaged or foreign file can fail anywhere in the parser
        raise Refused(f"{path} is not a readable PyTorch file: {error!r}.") from error


def _literal(value: Any) -> bytes:
    """The pickle of a plain value, without its frame: to be put inside another pickle."""
    return pickle.dumps(value, protocol=2)[2:-1]


def _reference(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _pickled(value: Any, storages: list[np.ndarray]) -> bytes:
    if isinstance(value, Mapping):
        items = (_literal(k) + _pickled(v, storages) + pickle.SETITEM for k, v in value.items())
        return pickle.EMPTY_DICT + b"".join(items)
    if not isinstance(value, np.ndarray | np.generic):
        return _literal(value)
    array = np.ascontiguousarray(value).reshape(np.shape(value))
    kind = next(name for name, dtype in STORAGES.items() if dtype == array.dtype)
    storages.append(array)
    identity = _literal(str(len(storages) - 1)) + _literal("cpu") + _literal(array.size)
    storage = pickle.MARK + _literal("storage") + _reference("torch", kind) + identity
    strides = tuple(step // array.itemsize for step in array.strides)
    hooks = _reference("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = storage + pickle.TUPLE + pickle.BINPERSID + _literal(0)
    arguments += _literal(array.shape) + _literal(strides) + _literal(False) + hooks
    rebuild = _reference("torch._utils", "_rebuild_tensor_v2")
    return rebuild + pickle.MARK + arguments + pickle.TUPLE + pickle.REDUCE


def write(path: str | Path, value: Mapping[str, Any]) -> None:
    """Nested dicts of arrays and plain values, as torch.save would; torch.load reads it."""
    storages: list[np.ndarray] = []
    body = pickle.PROTO + b"\x02" + _pickled(value, storages) + pickle.STOP
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/byteorder", "little")
        for key, array in enumerate(storages):
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
