"""Weights files of this project: safetensors in the canonical layout, metadata in the header."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from l2l_jax.lib import bounded, files, trees
from l2l_jax.lib.errors import WrongWeights

DTYPES = (np.float16, np.float32, np.float64)  # of the arrays that are read


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters and where they come from."""

    params: trees.Tree  # canonical layout, float32, on the host
    about: dict[str, Any]  # metadata: model, args, source; digest if read from a file

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the parameters in memory."""
        return trees.digest(self.params)


def save(path: Path, params: trees.Tree, about: dict[str, Any], half: bool = False) -> str:
    """Writes a file atomically and returns the digest of the stored values.

    half: store kernels in float16; everything else is float32.
    """
    flat = {}
    for name, leaf in trees.flatten(params).items():
        dtype = np.float16 if half and _halved(name) else np.float32
        flat[name] = np.ascontiguousarray(leaf, dtype=dtype)  # safetensors miswrites strided arrays
    stored = {name: leaf.astype(np.float32) for name, leaf in flat.items()}
    about = about | {"digest": trees.digest(trees.unflatten(stored))}
    header = {"about": json.dumps(about, sort_keys=True)}
    with files.atomic_write(path) as file:
        file.write(safetensors.numpy.save(flat, metadata=header))
    return about["digest"]


def rounded(params: trees.Tree) -> trees.Tree:
    """The parameters as they are read back from a file saved with half=True."""
    flat = trees.flatten(params).items()
    half = {k: np.asarray(x, np.float16).astype(np.float32) if _halved(k) else x for k, x in flat}
    return trees.unflatten(half)


def _halved(name: str) -> bool:
    return name.endswith("kernel")


def load(path: Path) -> Weights:
    """Reads a file and checks its digest. WrongWeights if it is damaged or has no metadata.

    The library compares the sizes in the header with the size of the file; a header has at most
    100 MB. Here only regular files, floating point numbers and metadata of the known form pass.
    """
    try:
        bounded.open_regular(path).close()
        with safetensors.safe_open(path, framework="np") as file:
            about = bounded.parse_json((file.metadata() or {}).get("about", "{}"), path)
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except Exception as error:  # the library and NumPy raise many types, as for unknown dtypes
        reason = str(error).removeprefix(f"{path} ")
        raise WrongWeights(f"{path} is not a readable weights file: {reason}.") from error
    _check_about(path, about)
    if wrong := next((n for n, x in stored.items() if x.dtype not in DTYPES), None):
        raise WrongWeights(f"{path} holds {wrong!r:.100} as {stored[wrong].dtype}, not as floats.")
    try:
        params = trees.unflatten({name: x.astype(np.float32) for name, x in stored.items()})
    except (
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
    ) as error:  # a name is both an array and a group
        raise WrongWeights(f"{path} has names that contradict each other: {error}.") from error
    if trees.digest(params) != about["digest"]:
        raise WrongWeights(f"{path} is damaged: its content does not match its digest.")
    return Weights(params, about)


def _check_about(path: Path, about: Any) -> None:
    """WrongWeights if the metadata name no model, or are of another form."""
    kinds = {"digest": str, "model": str}
    if not isinstance(about, dict) or any(
        not isinstance(about.get(key), kind) for key, kind in kinds.items()
    ):
        raise WrongWeights(
            f"{path} does not say which model it belongs to; make it with "
            "'python -m l2l_jax.weights import'."
        )
    if not isinstance(about.get("args", {}), dict):
        raise WrongWeights(f"{path} states args that are no section: {about['args']!r:.100}.")
