"""Unpickles the pickle inside a PyTorch checkpoint without executing anything in it.

Unpickling uses an allow-list of names, each of which stands for an inert object of this file or for
an immutable built-in type. Any other name is refused, and so is every attempt to change an object
of the allow-list. NumPy builds each tensor over its storage and checks the bounds; a tensor cannot
be larger than its storage.
"""

import pickle
import types
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from l2l_jax.lib.errors import UserError

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


class Refused(UserError, pickle.UnpicklingError):
    """The file names something outside the allow-list, or contradicts itself."""


class _Inert:
    """An object that a pickle may hold but not alter: its BUILD opcode raises Refused."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise Refused("it tries to alter an object of the reader")


class Storage(_Inert):
    """A flat buffer of `size` numbers of one dtype; data is None until it is read."""

    __slots__ = ("data", "dtype", "size")

    def __init__(self, dtype: np.dtype, size: int, data: bytes | None = None):
        self.dtype, self.size, self.data = dtype, size, data


class Tensor(_Inert):
    """A strided view of a storage; offset and strides count elements, not bytes."""

    __slots__ = ("offset", "shape", "storage", "stride")

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any):
        if not isinstance(storage, Storage):
            raise Refused("a tensor without a storage")
        self.storage, self.offset = storage, offset
        self.shape, self.stride = tuple(shape), tuple(stride)

    def array(self) -> np.ndarray:
        """A copy of the values. Refused if the view does not lie inside its storage."""
        numbers = (self.offset, *self.shape, *self.stride)
        if any(type(n) is not int or n < 0 for n in numbers):
            raise Refused("a tensor with impossible sizes")
        dtype, data = self.storage.dtype, self.storage.data
        if data is None or prod(self.shape) > self.storage.size:
            raise Refused("a tensor larger than its storage")
        strides = [stride * dtype.itemsize for stride in self.stride]
        try:
            view = np.ndarray(self.shape, dtype, data, self.offset * dtype.itemsize, strides)
        except (TypeError, ValueError):
            raise Refused("a tensor that reaches outside its storage") from None
        return view.copy()


class _Call(_Inert):
    """An allow-listed function: a pickle can call it but not read or alter it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Call(lambda s, o, n, t, *_: Tensor(s, o, n, t)),
    ("torch._utils", "_rebuild_parameter"): _Call(lambda tensor, *_: tensor),
    ("torch", "device"): _Call(lambda *parts: ":".join(map(str, parts))),
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): OrderedDict,
    ("argparse", "Namespace"): types.SimpleNamespace,
    **{("torch", name): name for name in STORAGES},
}


class Unpickler(pickle.Unpickler):
    """Finds the names in _ALLOWED only; `storage` turns a persistent id into a Storage."""

    def __init__(self, file: BinaryIO, storage: Callable[[Any], Storage]):
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise Refused(f"it asks for {module}.{name}, which a weights file has no use for")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        return self._storage(pid)


class Storages:
    """The storages of one file by key; one key always gives the same storage."""

    def __init__(self) -> None:
        self._storages: dict[str, Storage] = {}

    def get(self, pid: Any, read: Callable[[str, int], bytes | None]) -> Storage:
        """The storage of a persistent id.

        read(key, number of bytes) returns its data, or None if `fill` reads it later.
        """
        kind, dtype, key, _, size, *_ = pid
        if kind != "storage" or dtype not in STORAGES or type(size) is not int or size < 0:
            raise Refused(f"a storage it describes as {str(pid)[:100]}")
        key, stated = str(key), STORAGES[dtype]
        if key not in self._storages:
            data = read(key, size * stated.itemsize)
            self._storages[key] = Storage(stated, size, data)
        storage = self._storages[key]
        if (storage.dtype, storage.size) != (stated, size):
            raise Refused(f"storage {key} is described in two ways")
        return storage

    def fill(self, key: Any, size: int, file: BinaryIO) -> None:
        """Reads the data of a storage from the current position of the file.

        size: the number of elements that the file states. Refused if that is not the size.
        """
        storage = self._storages[str(key)]
        storage.data = file.read(storage.size * storage.dtype.itemsize)
        if size != storage.size or len(storage.data) != storage.size * storage.dtype.itemsize:
            raise Refused(f"storage {key} is cut off or has another size than stated")


def resolve(value: Any, done: dict[int, Any]) -> Any:
    """`value` with every Tensor in nested dicts, lists and tuples replaced by its array.

    done: the results so far by id, {} in the first call, so that shared parts stay shared.
    """
    if id(value) not in done:
        if isinstance(value, Tensor):
            done[id(value)] = value.array()
        elif isinstance(value, Mapping):
            done[id(value)] = {key: resolve(item, done) for key, item in value.items()}
        elif isinstance(value, list | tuple):
            done[id(value)] = type(value)(resolve(item, done) for item in value)
        else:
            return value
    return done[id(value)]
