"""Published networks that judge images: where their files are, and what is in them."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from l2l_jax.lib import files, trees
from l2l_jax.lib.errors import DataMissing, WrongWeights
from l2l_jax.lib.nnx_pure import Pure
from l2l_jax.types import Params
from l2l_jax.weights import torch_reader

RANDOM = "random"
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


def parameters(
    spec: str, network: Pure, to_ours: Callable[[Mapping[str, np.ndarray], Path], Params]
) -> tuple[Params, dict[str, Any]]:
    """(parameters of a network, what is to be said of them). spec: a file, or "random"."""
    if spec == RANDOM:
        params = _drawn(network.template)
        return params, {"weights": RANDOM, "digest": trees.digest(params)}
    path = locate(spec)
    sha256 = digest(path)
    state = torch_reader.read(path)
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise WrongWeights(f"{path} holds a {type(state).__name__}, not a state dict.")
    params = to_ours(state, path)
    if text := trees.difference(params, network.template, path.name, "the network"):
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


def taker(state: Mapping[str, np.ndarray], path: Path) -> Callable[[str], np.ndarray]:
    """name -> array of an official file; WrongWeights names what is missing, and what is there."""

    def take(name: str) -> np.ndarray:
        if name not in state:
            some = ", ".join(sorted(state)[:5])
            raise WrongWeights(f"{path} has no {name}. Is it another network? It holds {some}, ...")
        return np.asarray(state[name], np.float32)

    return take


def folded(take: Callable[[str], np.ndarray], weight: str, norm: str, epsilon: float) -> Params:
    """A convolution, [out, in, h, w], with the batch normalisation after it: kernel and bias."""
    spread = np.sqrt(np.float64(take(f"{norm}.running_var")) + epsilon)
    gain = take(f"{norm}.weight") / spread
    kernel = take(weight).transpose(2, 3, 1, 0) * gain
    bias = take(f"{norm}.bias") - take(f"{norm}.running_mean") * gain
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
