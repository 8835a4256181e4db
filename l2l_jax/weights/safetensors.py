"""Weights files of this project: safetensors in the canonical layout, metadata in the header."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from l2l_jax.lib import files, trees
from l2l_jax.lib.errors import WrongWeights


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
    """Reads a file and checks its digest. WrongWeights if it is damaged or has no metadata."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            flat = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise WrongWeights(f"{path} is not a readable weights file: {error}.") from error
    if "digest" not in about or "model" not in about:
        raise WrongWeights(
            f"{path} does not say which model it belongs to; make it with "
            "'python -m l2l_jax.weights import'."
        )
    params = trees.unflatten(flat)
    if trees.digest(params) != about["digest"]:
        raise WrongWeights(f"{path} is damaged: its content does not match its digest.")
    return Weights(params, about)
