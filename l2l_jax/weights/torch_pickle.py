"""What the pickle inside a PyTorch checkpoint may say, unpickled so that nothing in it can execute.

Unpickling goes through an allow-list of a dozen names, all of which stand for inert objects of this
file or for immutable built-in types; anything else is refused by name, and so is every attempt to
change what a name stands for. A tensor is built by NumPy over its storage, which checks the bounds,
and cannot be larger than that storage.
"""

import pickle
import types
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from l2l_jax.lib.errors import Explained

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


class Storage(_Inert):
    """`size` numbers of one type, in a row; data is None until it is read."""

    __slots__ = ("data", "dtype", "size")

    def __init__(self, dtype: np.dtype, size: int, data: bytes | None = None):
        self.dtype, self.size, self.data = dtype, size, data


class Tensor(_Inert):
    """A view of a storage; offset and stride count numbers, not bytes."""

    __slots__ = ("offset", "shape", "storage", "stride")

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any):
        if not isinstance(storage, Storage):
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
    ("torch._utils", "_rebuild_tensor_v2"): _Call(lambda s, o, n, t, *_: Tensor(s, o, n, t)),
    ("torch._utils", "_rebuild_parameter"): _Call(lambda tensor, *_: tensor),
    ("torch", "device"): _Call(lambda *about: ":".join(map(str, about))),
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): OrderedDict,
    ("argparse", "Namespace"): types.SimpleNamespace,
    **{("torch", name): name for name in STORAGES},
}


class Unpickler(pickle.Unpickler):
    """Knows the names of _ALLOWED; `storage` makes a Storage of a persistent id."""

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
    """The storages of one file by key; the same key always means the same storage."""

    def __init__(self) -> None:
        self._found: dict[str, Storage] = {}

    def get(self, pid: Any, read: Callable[[str, int], bytes | None]) -> Storage:
        """The storage of a persistent id; read(key, bytes) gives its data, or None for later."""
        kind, dtype, key, _, size, *_ = pid
        if kind != "storage" or dtype not in STORAGES or type(size) is not int or size < 0:
            raise Refused(f"a storage it describes as {str(pid)[:100]}")
        key, wanted = str(key), STORAGES[dtype]
        if key not in self._found:
            data = read(key, size * wanted.itemsize)
            self._found[key] = Storage(wanted, size, data)
        found = self._found[key]
        if (found.dtype, found.size) != (wanted, size):
            raise Refused(f"storage {key} is described in two ways")
        return found

    def fill(self, key: Any, stated: int, file: BinaryIO) -> None:
        """Reads the data of a storage from where the file stands."""
        storage = self._found[str(key)]
        storage.data = file.read(storage.size * storage.dtype.itemsize)
        if stated != storage.size or len(storage.data) != storage.size * storage.dtype.itemsize:
            raise Refused(f"storage {key} is cut off or has another size than stated")


def resolve(value: Any, done: dict[int, Any]) -> Any:
    """Tensors become arrays, everywhere in nested dicts, lists and tuples; shared parts once.

    done: {} to begin with.
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
