"""Published networks that judge images: where their files are, and what is in them."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from l2l_jax.lib import files, trees
from l2l_jax.lib.errors import DataMissing, WrongWeights
from l2l_jax.types import RANDOM_WEIGHTS, NetworkContext, Params, Source, SplitLike
from l2l_jax.weights import safetensors, torch_reader

log = logging.getLogger(__name__)

HUGGING_FACE = "https://huggingface.co/laion"


class Published(NamedTuple):
    """address, licence, its SHA-256 or the first digits known of it, size, what it is for."""

    address: str
    licence: str
    sha256: str
    size: str
    what: str


OFFICIAL = {
    "pt_inception-2015-12-05-6726825d.pth": Published(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        "Apache-2.0", "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "96 MB", "fid, kid, is: the FID Inception",
    ),
    "inception_v3_google-0cc3c7bd.pth": Published(
        "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
        "BSD-3-Clause", "0cc3c7bd", "109 MB", "is_released: torchvision's Inception",
    ),
    "CLIP-ViT-H-14-laion2B-s32B-b79K.bin": Published(
        f"{HUGGING_FACE}/CLIP-ViT-H-14-laion2B-s32B-b79K/resolve/main/open_clip_pytorch_model.bin",
        "MIT", "9a78ef8e8c73fd0df621682e7a8e8eb36c6916cb3c16b291a082ecd52ab79cc4",
        "3.9 GB", "clip: the papers' embedding",
    ),
    "CLIP-ViT-B-32-laion2B-s34B-b79K.bin": Published(
        f"{HUGGING_FACE}/CLIP-ViT-B-32-laion2B-s34B-b79K/resolve/main/open_clip_pytorch_model.bin",
        "MIT", "", "605 MB", "clip on a small machine",
    ),
    "resnet50_places365.pth.tar": Published(
        "http://places2.csail.mit.edu/models_places365/resnet50_places365.pth.tar",
        "CC BY", "", "97 MB", "is of scenes: ResNet-50 trained on Places365",
    ),
}  # fmt: skip


def folders() -> list[Path]:
    """Where files of networks are looked for, in this order: $L2L_WEIGHTS, weights/, the cache."""
    told = os.environ.get("L2L_WEIGHTS")
    first = [Path(told).expanduser()] if told else []
    return [*first, Path("weights"), files.cache_dir() / "weights"]


def locate(spec: str) -> Path:
    """The file of an official name, or of a path. DataMissing says where it comes from."""
    given = Path(spec).expanduser()
    places = [given] if given.name != spec else [folder / spec for folder in folders()]
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(map(str, places))
    if spec not in OFFICIAL:
        raise DataMissing(f"There is no file {looked}.")
    about = OFFICIAL[spec]
    raise DataMissing(
        f"{spec} is not there (looked for {looked}). It is published at {about.address} "
        f"({about.size}, {about.licence}); this gets it:\n  python launch/fetch_weights.py {spec}"
    )


def digest(path: Path) -> str:
    """SHA-256 of a file. WrongWeights if the file is an official one and has another."""
    found, known = files.sha256(path), OFFICIAL.get(path.name)
    if known and not found.startswith(known.sha256):
        raise WrongWeights(
            f"{path} is not the published file: its SHA-256 is {found[:16]}..., that of the "
            f"published one begins with {known.sha256}. Remove it and get it again:\n"
            f"  python launch/fetch_weights.py {path.name}"
        )
    return found


def load(
    spec: str, template: Params, from_torch: Callable[..., Params]
) -> tuple[Params, dict[str, Any]]:
    """(parameters, statements about them for the report); see NetworkContext.load."""
    if spec == RANDOM_WEIGHTS:
        params = _drawn(template)
        return params, {"weights": RANDOM_WEIGHTS, "digest": trees.digest(params)}
    path = locate(spec)
    sha256 = digest(path)
    state = torch_reader.read(path)
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise WrongWeights(f"{path} holds a {type(state).__name__}, not a state dict.")
    params = from_torch(state, path)
    if text := trees.difference(params, template, path.name, "the network"):
        raise WrongWeights(f"{path} does not fit.\n{text}")
    return params, {"weights": path.name, "sha256": sha256, "digest": trees.digest(params)}


def _drawn(template: Params) -> Params:
    """Seeded parameters of these shapes; by NumPy, since compiling the draw would take minutes."""
    rng, found = np.random.default_rng(0), {}
    for name, like in trees.flatten(template).items():
        fan_in = max(1, np.prod(like.shape[:-1]))
        constant = {"bias": 0.0, "scale": 1.0}.get(name.split("/")[-1])
        drawn = rng.normal(0, np.sqrt(2 / fan_in), like.shape) if constant is None else constant
        found[name] = np.full(like.shape, drawn, np.float32)
    return trees.unflatten(found)


def context(
    sources: Mapping[str, Source], splits: Mapping[str, SplitLike], image_size: int
) -> NetworkContext:
    """What the build function of a feature network is given."""
    return NetworkContext(sources, splits, image_size, load, cached)


def cached(
    key: str, make: Callable[[], tuple[Params, dict[str, Any]]]
) -> tuple[Params, dict[str, Any]]:
    """What make() returns, (parameters, statements), kept in the cache under `key`.

    A damaged file is made again. If the cache cannot be written, the log says so.
    """
    path = files.cache_dir() / f"{key}.safetensors"
    try:
        found = safetensors.load(path)
        return found.params, found.about
    except FileNotFoundError:
        pass
    except WrongWeights as error:
        log.warning("%s It is made again.", error)
    params, about = make()
    try:
        safetensors.save(path, params, about)
    except OSError as error:
        log.warning("%s is not kept for the next run: %s", path.name, error)
    return params, about | {"digest": trees.digest(params)}
