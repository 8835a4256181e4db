"""PyTorch checkpoint files, read without PyTorch. Nothing in a file can execute.

A checkpoint is a pickle plus raw storages. The reader unpickles through an allow-list of a dozen
names, all of which stand for inert objects of this file or for immutable built-in types; anything
else is refused by name, and so is every attempt to change what a name stands for. A tensor is built
by NumPy over its storage, which checks the bounds, and cannot be larger than that storage. Both
forms are read: the zip archive (torch >= 1.6) and the older stream of pickles.
"""

import io
import pickle
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import prod
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


class _Inert:
    """What a pickle may hold but not alter: its BUILD opcode ends here."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise Refused("it tries to alter an object of the reader")


class _Storage(_Inert):
    __slots__ = ("data", "dtype", "size")

    def __init__(self, dtype: np.dtype, size: int, data: bytes | None = None):
        self.dtype, self.size, self.data = dtype, size, data


class _Tensor(_Inert):
    __slots__ = ("offset", "shape", "storage", "stride")

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any):
        if not isinstance(storage, _Storage):
            raise Refused("a tensor without a storage")
        self.storage, self.offset = storage, offset
        self.shape, self.stride = tuple(shape), tuple(stride)

    def array(self) -> np.ndarray:
        """The values, copied."""
        numbers = (self.offset, *self.shape, *self.stride)
        if any(type(n) is not int or n < 0 for n in numbers):
            raise Refused("a tensor with impossible sizes")
        dtype, data = self.storage.dtype, self.storage.data
        if data is None or prod(self.shape) > self.storage.size:
            raise Refused("a tensor larger than its storage")
        steps = [step * dtype.itemsize for step in self.stride]
        try:
            view = np.ndarray(self.shape, dtype, data, self.offset * dtype.itemsize, steps)
        except (TypeError, ValueError):
            raise Refused("a tensor that reaches outside its storage") from None
        return view.copy()


class _Call(_Inert):
    """An allow-listed function: can be called by a pickle, and nothing else."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Call(lambda s, o, n, t, *_: _Tensor(s, o, n, t)),
    ("torch._utils", "_rebuild_parameter"): _Call(lambda tensor, *_: tensor),
    ("torch", "device"): _Call(lambda *about: ":".join(map(str, about))),
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): OrderedDict,
    ("argparse", "Namespace"): types.SimpleNamespace,
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


class _Storages:
    """The storages of one file by key; the same key always means the same storage."""

    def __init__(self) -> None:
        self._found: dict[str, _Storage] = {}

    def get(self, pid: Any, read: Callable[[str, int], bytes | None]) -> _Storage:
        kind, dtype, key, _, size, *_ = pid
        if kind != "storage" or dtype not in STORAGES or type(size) is not int or size < 0:
            raise Refused(f"a storage it describes as {str(pid)[:100]}")
        key, wanted = str(key), STORAGES[dtype]
        if key not in self._found:
            data = read(key, size * wanted.itemsize)
            self._found[key] = _Storage(wanted, size, data)
        found = self._found[key]
        if (found.dtype, found.size) != (wanted, size):
            raise Refused(f"storage {key} is described in two ways")
        return found

    def fill(self, key: Any, stated: int, file: BinaryIO) -> None:
        storage = self._found[str(key)]
        storage.data = file.read(storage.size * storage.dtype.itemsize)
        if stated != storage.size or len(storage.data) != storage.size * storage.dtype.itemsize:
            raise Refused(f"storage {key} is cut off or has another size than stated")


def _resolve(value: Any, done: dict[int, Any]) -> Any:
    """Tensors become arrays, everywhere in nested dicts, lists and tuples; shared parts once."""
    if id(value) not in done:
        if isinstance(value, _Tensor):
            done[id(value)] = value.array()
        elif isinstance(value, Mapping):
            done[id(value)] = {key: _resolve(item, done) for key, item in value.items()}
        elif isinstance(value, list | tuple):
            done[id(value)] = type(value)(_resolve(item, done) for item in value)
        else:
            return value
    return done[id(value)]


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused("it is a zip archive, but not one that torch.save made")
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
        storages = _Storages()

        def storage(pid: Any) -> _Storage:
            return storages.get(pid, lambda key, size: read(f"data/{key}", size))

        return _resolve(_Unpickler(io.BytesIO(read("data.pkl")), storage).load(), {})


def _read_legacy(path: Path) -> Any:
    storages = _Storages()
    with path.open("rb") as file:

        def load() -> Any:
            return _Unpickler(file, lambda pid: storages.get(pid, lambda *_: None)).load()

        if load() != LEGACY_MAGIC:
            raise Refused("it does not begin like a PyTorch file")
        protocol, system = load(), load()
        if protocol != 1001 or not system.get("little_endian", False):
            raise Refused(f"its protocol is {protocol!r} on {system!r}")
        value = load()
        for key in load():
            storages.fill(key, int.from_bytes(file.read(8), "little"), file)
        return _resolve(value, {})


def read(path: str | Path) -> Any:
    """The object in the file, tensors as NumPy arrays. Raises Refused (naming why) or OSError."""
    path = Path(path)
    try:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except Refused as error:
        raise Refused(f"{path} is not read: {error}.") from None
    except OSError:
        raise
    except Exception as error:  # a damaged or foreign file can fail anywhere in the parser
        raise Refused(f"{path} is not a readable PyTorch file: {error!r}.") from error
