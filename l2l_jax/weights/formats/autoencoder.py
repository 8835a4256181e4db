"""PyTorch files of the autoencoder. Nobody published any: the layout is this project's own."""

import itertools
from typing import Any

import numpy as np

from l2l_jax.lib.errors import WrongWeights
from l2l_jax.models.autoencoder import SIZES, Size
from l2l_jax.types import ImageToImage
from l2l_jax.weights.name_map import Rule, convolution, linear, norm


def _layers(name: str) -> list[Rule]:
    torch, ours = f"{name}.{{i}}", f"{name.replace('.', '/')}/{{i}}"
    return linear(f"{torch}.conv", f"{ours}/conv", convolution) + norm(
        f"{torch}.norm", f"{ours}/norm"
    )


NAMES = [
    *_layers("encoder.down"),
    *_layers("encoder.middle"),
    *linear("encoder.out", "encoder/out", convolution),
    *_layers("decoder.middle"),
    *_layers("decoder.up"),
    *linear("decoder.out", "decoder/out", convolution),
]
AMBIGUOUS = ("groups",)  # what a state dict does not tell, if it is not the 8 of "small"


def infer_args(state: dict[str, np.ndarray], about: dict[str, Any]) -> dict[str, Any]:
    """The `build` arguments of a state dict that `weights export` wrote; about: what the user says.

    WrongWeights for any other: there are no official weights. The image size is 32 unless told.
    """
    if "encoder.down.0.conv.weight" not in state or "decoder.out.weight" not in state:
        raise WrongWeights(
            "This is no autoencoder of l2l_jax: it has no encoder.down.0.conv and decoder.out. "
            "There are no official weights; train it, as configs/autoencoder_cifar10.py does."
        )
    levels = itertools.takewhile(
        lambda name: name in state, (f"encoder.down.{i}.conv.weight" for i in itertools.count())
    )
    shape = dict(widths=tuple(state[name].shape[0] for name in levels))
    shape["blocks"] = sum(f"encoder.middle.{i}.conv.weight" in state for i in range(len(state)))
    shape["latent"] = state["encoder.out.weight"].shape[0]
    shape["groups"] = about.get("groups", SIZES["small"].groups)
    image_size = about.get("image_size", 32)
    for name, known in SIZES.items():
        if known == Size(**shape):
            return {"size": name, "image_size": image_size}
    return {"size": "small", **shape, "image_size": image_size}


def to_torch(state: dict[str, np.ndarray], model: ImageToImage) -> dict[str, Any]:
    """The content of a file for PyTorch, {"model": state dict}; the layers are in the docstring."""
    del model
    return {"model": state}
