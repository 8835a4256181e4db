"""Finds, checks and reads the files of feature networks, which evaluators measure with."""

import functools
import io
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from l2l_jax.lib import files, sealed, trees
from l2l_jax.lib.errors import DataMissing, UserError, WrongWeights
from l2l_jax.types import RANDOM_WEIGHTS, NetworkContext, Params, Source, SplitLike
from l2l_jax.weights import torch_reader
from l2l_jax.weights.pretrained import BUNDLED
from l2l_jax.weights.published import NETWORK_FILES

log = logging.getLogger(__name__)

METADATA = "metadata"  # name in a cache file, beside those of the arrays


def folders() -> list[Path]:
    """Folders that are searched for a file, in this order: $L2L_WEIGHTS, weights/, the cache."""
    variable = os.environ.get("L2L_WEIGHTS")
    first = [Path(variable).expanduser()] if variable else []
    return [*first, Path("weights"), files.cache_dir() / "weights"]


def locate(spec: str) -> Path:
    """The file with a published name, or at a path. DataMissing says how to get it."""
    path = Path(spec).expanduser()
    candidates = [path] if path.name != spec else [folder / spec for folder in folders()]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    searched = ", ".join(map(str, candidates))
    if spec not in NETWORK_FILES:
        raise DataMissing(f"There is no file {searched}.")
    file = NETWORK_FILES[spec]
    raise DataMissing(
        f"{spec} is missing (looked for {searched}). It is published at {file.url} "
        f"({file.size}, {file.licence}); this downloads it:\n"
        f"  python -m l2l_jax.weights.fetch {spec}"
    )


def digest(path: Path) -> str:
    """SHA-256 of a file. WrongWeights if it has a published name but another SHA-256."""
    sha256, file = files.sha256(path), NETWORK_FILES.get(path.name)
    if file and not sha256.startswith(file.sha256):
        raise WrongWeights(
            f"{path} is not the published file: its SHA-256 is {sha256[:16]}..., that of the "
            f"published one begins with {file.sha256}. Remove it and download it again:\n"
            f"  python -m l2l_jax.weights.fetch {path.name}"
        )
    return sha256


def load(
    spec: str, template: Params, from_torch: Callable[..., Params]
) -> tuple[Params, dict[str, Any]]:
    """(parameters, their origin and digest for the report); see NetworkContext.load."""
    if spec == RANDOM_WEIGHTS:
        params = _random(template)
        return params, {"weights": RANDOM_WEIGHTS, "digest": trees.digest(params)}
    path = locate(spec)
    sha256 = digest(path)
    state = torch_reader.read(path)
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise WrongWeights(f"{path} holds a {type(state).__name__}, not a state dict.")
    try:
        params = from_torch(state, path)
    except UserError:
        raise
    except Exception as error:  # arrays of unexpected names and shapes can fail in any rule
        raise WrongWeights(
            f"{path} does not hold this network ({type(error).__name__}: {error})."
        ) from error
    if text := trees.difference(params, template, path.name, "the network"):
        raise WrongWeights(f"{path} does not fit.\n{text}")
    return params, {"weights": path.name, "sha256": sha256, "digest": trees.digest(params)}


def _random(template: Params) -> Params:
    """Seeded random parameters, float32. Drawn by NumPy: compiling the draw would take minutes."""
    rng, flat = np.random.default_rng(0), {}
    for name, leaf in trees.flatten(template).items():
        fan_in = max(1, np.prod(leaf.shape[:-1]))
        constant = {"bias": 0.0, "scale": 1.0}.get(name.split("/")[-1])
        values = rng.normal(0, np.sqrt(2 / fan_in), leaf.shape) if constant is None else constant
        flat[name] = np.full(leaf.shape, values, np.float32)
    return trees.unflatten(flat)


def cached(
    key: str, make: Callable[[], tuple[Params, dict[str, Any]]]
) -> tuple[Params, dict[str, Any]]:
    """What make() returns, (parameters, metadata), stored in the cache under `key`.

    What is bundled under this key is neither made nor stored. A file that does not fit its digest
    is replaced. If the cache cannot be written, a warning is logged.
    """
    path, bundled = (folder / f"{key}.npz" for folder in (files.cache_dir(), BUNDLED))
    if stored := sealed.read(bundled, key) or sealed.read(path, key):
        with np.load(io.BytesIO(stored)) as arrays:
            flat = dict(arrays)
        metadata = json.loads(str(flat.pop(METADATA)))
        return trees.unflatten(flat), metadata
    params, metadata = make()
    metadata = metadata | {"digest": trees.digest(params)}
    sealed.write_if_possible(path, key, content(params, metadata))
    return params, metadata


def content(params: Params, metadata: Mapping[str, Any]) -> Callable[[BinaryIO], None]:
    """The function that writes the content of a cache file; metadata holds the digest."""
    flat = trees.flatten(params) | {METADATA: np.array(json.dumps(dict(metadata)))}
    return functools.partial(np.savez, allow_pickle=False, **flat)


def context(
    sources: Mapping[str, Source],
    splits: Mapping[str, SplitLike],
    image_size: int,
    cached: Callable[..., tuple[Params, dict[str, Any]]] = cached,
) -> NetworkContext:
    """The argument of the build function of a feature network."""
    return NetworkContext(sources, splits, image_size, load, cached)
