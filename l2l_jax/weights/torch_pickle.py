"""Unpickles the pickle inside a PyTorch checkpoint without executing anything in it.

Unpickling uses an allow-list of names, each of which stands for an inert object of this file or for
an immutable built-in type. Any other name is refused, and so is every attempt to change an object
of the allow-list. NumPy builds each tensor over its storage and checks the bounds; a tensor cannot
be larger than its storage.

The unpickler is that of Python's library written in Python, not the one in C: its memo is a dict,
so that an index of the memo costs no memory, and what is put into a dict can be checked. Hashing a
tuple that holds itself twice, to a depth of sixty, would never end; the keys of a dict are
therefore plain values.
"""

import pickle
import reprlib
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any, BinaryIO, ClassVar

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


PLAIN = (str, int, float, bool, type(None))  # keys of dicts


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


def _checked_keys(keys: Iterable[Any]) -> None:
    """Refused if a key of a dict is not a plain value."""
    if any(not isinstance(key, PLAIN) for key in keys):
        raise Refused("a dict with a key that is neither a name nor a number")


def _ordered(*pairs: Any) -> OrderedDict:
    """An OrderedDict, from nothing or from one list of pairs."""
    items = [tuple(pair) for pair in pairs[0]] if pairs else []
    _checked_keys(key for key, _ in items)
    return OrderedDict(items)


def _device(*parts: Any) -> str:
    """The name of a device, such as "cuda:0"."""
    _checked_keys(parts)
    return ":".join(map(str, parts))


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Call(lambda s, o, n, t, *_: Tensor(s, o, n, t)),
    ("torch._utils", "_rebuild_parameter"): _Call(lambda tensor, *_: tensor),
    ("torch", "device"): _Call(_device),
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): _Call(_ordered),
    ("argparse", "Namespace"): types.SimpleNamespace,
    **{("torch", name): name for name in STORAGES},
}


_Python: Any = pickle._Unpickler  # type checkers know the one in C only


class Unpickler(_Python):
    """Finds the names in _ALLOWED only; `storage` turns a persistent id into a Storage.

    Refused for a dict with keys that are no plain values, and for sets, which no weights file has.
    """

    dispatch: ClassVar = dict(_Python.dispatch)  # {code of an instruction: its function}

    def __init__(self, file: BinaryIO, storage: Callable[[Any], Storage]):
        super().__init__(file)
        self._storage = storage

    def _set_item(self) -> None:
        _checked_keys(self.stack[-2:-1])
        self.load_setitem()

    def _set_items(self) -> None:
        _checked_keys(self.stack[::2])
        self.load_setitems()

    def _make_dict(self) -> None:
        _checked_keys(self.stack[::2])
        self.load_dict()

    def _refuse_set(self) -> None:
        raise Refused("it holds a set, which a weights file has no use for")

    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _make_dict
    dispatch[pickle.EMPTY_SET[0]] = dispatch[pickle.FROZENSET[0]] = _refuse_set

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
        if type(pid) is not tuple or len(pid) < 5:
            raise Refused(f"a storage it describes as {reprlib.repr(pid)}")
        kind, dtype, key, _, size, *_ = pid
        _checked_keys([kind, dtype])
        if kind != "storage" or dtype not in STORAGES or type(size) is not int or size < 0:
            raise Refused(f"a storage it describes as {reprlib.repr(pid)}")
        _checked_keys([key])
        key, stated = str(key), STORAGES[dtype]
        if key not in self._storages:
            data = read(key, size * stated.itemsize)
            self._storages[key] = Storage(stated, size, data)
        storage = self._storages[key]
        if (storage.dtype, storage.size) != (stated, size):
            raise Refused(f"storage {key} is described in two ways")
        return storage

    def fill(self, key: Any, size: int, file: BinaryIO, left: int) -> None:
        """Reads the data of a storage from the current position of the file.

        size: the number of elements that the file states; left: bytes up to the end of the file.
        Refused if the storage has another size, or if less is left.
        """
        _checked_keys([key])
        if str(key) not in self._storages:
            raise Refused(f"no tensor uses the storage {key!r:.100}")
        storage = self._storages[str(key)]
        needed = storage.size * storage.dtype.itemsize
        if size != storage.size or needed > left:
            raise Refused(f"storage {key} is cut off or has another size than stated")
        storage.data = file.read(needed)


class Resolver:
    """Replaces every Tensor in nested dicts, lists and tuples by its array.

    What is shared in the file stays shared. Refused when the arrays take more than `limit` bytes:
    many tensors over one storage would otherwise become many copies of it.
    """

    def __init__(self, limit: int):
        self._done: dict[int, Any] = {}  # the results so far, by id
        self._left = self._limit = limit

    def __call__(self, value: Any) -> Any:
        """The value with arrays."""
        if id(value) not in self._done:
            if isinstance(value, Tensor):
                self._done[id(value)] = self._array(value)
            elif isinstance(value, Mapping):
                self._done[id(value)] = {key: self(item) for key, item in value.items()}
            elif isinstance(value, list | tuple):
                self._done[id(value)] = type(value)(self(item) for item in value)
            else:
                return value
        return self._done[id(value)]

    def _array(self, tensor: Tensor) -> np.ndarray:
        array = tensor.array()  # at most as large as its storage
        self._left -= array.nbytes
        if self._left < 0:
            raise Refused(f"its tensors need more than {self._limit:,} bytes, which it cannot hold")
        return array
