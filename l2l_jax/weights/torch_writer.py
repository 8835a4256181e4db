"""Writes PyTorch checkpoint files without PyTorch, as torch.save would for nested plain dicts."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.lib import files
from l2l_jax.weights.torch_pickle import STORAGES


def _literal(value: Any) -> bytes:
    """The pickle of a plain value without header and end, to be embedded in another pickle."""
    return pickle.dumps(value, protocol=2)[2:-1]


def _reference(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _pickled(value: Any, storages: list[np.ndarray]) -> bytes:
    """The pickle of nested dicts; every array is appended to `storages` and referred to by key."""
    if isinstance(value, Mapping):
        items = (_literal(k) + _pickled(v, storages) + pickle.SETITEM for k, v in value.items())
        return pickle.EMPTY_DICT + b"".join(items)
    if not isinstance(value, np.ndarray | np.generic):
        return _literal(value)
    array = np.ascontiguousarray(value).reshape(np.shape(value))
    storage_type = next(name for name, dtype in STORAGES.items() if dtype == array.dtype)
    storages.append(array)
    identity = _literal(str(len(storages) - 1)) + _literal("cpu") + _literal(array.size)
    storage = pickle.MARK + _literal("storage") + _reference("torch", storage_type) + identity
    strides = tuple(step // array.itemsize for step in array.strides)
    hooks = _reference("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = storage + pickle.TUPLE + pickle.BINPERSID + _literal(0)
    arguments += _literal(array.shape) + _literal(strides) + _literal(False) + hooks
    rebuild = _reference("torch._utils", "_rebuild_tensor_v2")
    return rebuild + pickle.MARK + arguments + pickle.TUPLE + pickle.REDUCE


def write(path: str | Path, value: Mapping[str, Any]) -> None:
    """Writes nested dicts of arrays and plain values, atomically."""
    storages: list[np.ndarray] = []
    body = pickle.PROTO + b"\x02" + _pickled(value, storages) + pickle.STOP
    with files.atomic_write(Path(path)) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/byteorder", "little")
        for key, array in enumerate(storages):
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
