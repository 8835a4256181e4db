"""PyTorch files of the autoencoder. None is published: the layout is this project's own."""

import dataclasses
import itertools
from typing import Any

from l2l_jax.lib.errors import WrongWeights
from l2l_jax.models.autoencoder import SIZES, Size
from l2l_jax.types import ImageToImage, StateDict
from l2l_jax.weights.formats._layers import published_size
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
AMBIGUOUS = ("groups",)  # if it is not the 8 of the size "small"


def infer_args(state: StateDict, known: dict[str, Any]) -> dict[str, Any]:
    """The `build` arguments of a state dict that `weights export` wrote.

    known: settings of the user, which may hold groups and image_size (else 32). WrongWeights for
    any other state dict: there are no official weights.
    """
    if "encoder.down.0.conv.weight" not in state or "decoder.out.weight" not in state:
        raise WrongWeights(
            "This is not an autoencoder of l2l_jax: it has no encoder.down.0.conv and decoder.out. "
            "There are no official weights; train it, as configs/autoencoder_cifar10.py does."
        )
    levels = itertools.takewhile(
        lambda name: name in state, (f"encoder.down.{i}.conv.weight" for i in itertools.count())
    )
    size = Size(
        widths=tuple(state[name].shape[0] for name in levels),
        blocks=sum(f"encoder.middle.{i}.conv.weight" in state for i in range(len(state))),
        latent=state["encoder.out.weight"].shape[0],
        groups=known.get("groups", SIZES["small"].groups),
    )
    dimensions, image_size = dataclasses.asdict(size), known.get("image_size", 32)
    if name := published_size(SIZES, dimensions):
        return {"size": name, "image_size": image_size}
    return {"size": "small", **dimensions, "image_size": image_size}


def to_torch(state: StateDict, model: ImageToImage) -> dict[str, Any]:
    """The content of a file for PyTorch, {"model": state dict}."""
    del model
    return {"model": state}
