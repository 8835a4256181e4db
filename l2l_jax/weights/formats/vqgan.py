"""Official files of the convolutional VQ-GAN (the tokenizer of MAGE)."""

import dataclasses
import re
from typing import Any

import jax

from l2l_jax.lib.errors import WrongWeights
from l2l_jax.models.vqgan import SIZES, VQGAN, Size
from l2l_jax.types import Params, StateDict
from l2l_jax.weights.formats._layers import published_size
from l2l_jax.weights.name_map import Rule, convolution, linear, norm


def _block(torch: str, ours: str) -> list[Rule]:
    rules = [Rule(f"{torch}.conv{i}.weight", f"{ours}/conv{i}/kernel", convolution) for i in (1, 2)]
    for name in ("norm1", "norm2"):
        rules += norm(f"{torch}.{name}", f"{ours}/{name}")
    return [*rules, Rule(f"{torch}.nin_shortcut.weight", f"{ours}/shortcut/kernel", convolution)]


def names(torch: str = "", ours: str = "") -> list[Rule]:
    """The rules with prefixes, for models that contain a tokenizer."""
    rules = [Rule(f"{torch}quantize.embedding.weight", f"{ours}decoder/codebook")]
    rules += _block(
        f"{torch}encoder.down.{{i}}.block.{{j}}", f"{ours}encoder/down/{{i}}/block/{{j}}"
    )
    rules += _block(f"{torch}decoder.up.{{i}}.block.{{j}}", f"{ours}decoder/up/{{i}}/block/{{j}}")
    rules += linear(
        f"{torch}decoder.up.{{i}}.upsample.conv", f"{ours}decoder/up/{{i}}/upsample", convolution
    )
    for part in ("encoder", "decoder"):
        for i in (1, 2):
            rules += _block(f"{torch}{part}.mid.block_{i}", f"{ours}{part}/block_{i}")
        for conv in ("conv_in", "conv_out"):
            rules += linear(f"{torch}{part}.{conv}", f"{ours}{part}/{conv}", convolution)
        rules += norm(f"{torch}{part}.norm_out", f"{ours}{part}/norm_out")
    return rules


NAMES = names()
AMBIGUOUS = ("groups",)  # if it is not the published 32


def infer_args(state: StateDict, known: dict[str, Any]) -> dict[str, Any]:
    """The `build` arguments of an official state dict.

    known: settings of the user, which may hold groups (else 32) and image_size (else 256).
    WrongWeights if it is another network.
    """
    if "quantize.embedding.weight" not in state or "encoder.conv_in.weight" not in state:
        raise WrongWeights(
            "This is not a VQ-GAN: it has no quantize.embedding and encoder.conv_in."
        )
    if foreign := [n for n in state if "attn" in n or "quant_conv" in n]:
        raise WrongWeights(
            f"This is a VQ-GAN of another layout (it has {foreign[0]}); the VQ-GAN of MaskGIT and "
            "MAGE has no attention and no quant_conv."
        )
    pattern = r"encoder\.down\.(\d+)\.block\.(\d+)\.conv2\.weight"
    levels: dict[int, list[int]] = {}  # channels of the residual blocks of each level
    for match in filter(None, (re.fullmatch(pattern, name) for name in state)):
        levels.setdefault(int(match[1]), []).append(state[match[0]].shape[0])
    gaps = [i for i in range(max(levels, default=0) + 1) if i not in levels]
    if gaps:
        raise WrongWeights(
            "This VQ-GAN is not a whole one: it has no "
            + ", ".join(f"encoder.down.{i}.block.*.conv2.weight" for i in gaps)
            + "."
        )
    width = state["encoder.conv_in.weight"].shape[0]
    codes, code_width = state["quantize.embedding.weight"].shape
    multipliers = tuple(levels[i][0] // width for i in range(len(levels)))
    groups = known.get("groups", 32)
    size = Size(width, multipliers, len(levels[0]), codes, code_width, groups)
    dimensions, image_size = dataclasses.asdict(size), known.get("image_size", 256)
    if name := published_size(SIZES, dimensions):
        return {"size": name, "image_size": image_size}
    return {"size": "published", **dimensions, "image_size": image_size}


def from_torch(state: StateDict) -> StateDict:
    """An official state dict without the arrays of the training losses."""
    return {name: value for name, value in state.items() if not name.startswith("loss.")}


def adapt(params: Params, model: VQGAN) -> Params:
    """Parameters of a file for this model: without a critic unless it trains one.

    A critic that the file lacks is initialised.
    """
    decoder = dict(params.get("decoder", {}))
    if not model.adversarial:
        decoder.pop("critic", None)
    elif "critic" not in decoder:
        fresh = model.init(jax.random.key(0))["decoder"]["critic"]
        decoder["critic"] = jax.device_get(fresh)
    return params | {"decoder": decoder}


def to_torch(state: StateDict, model: VQGAN) -> dict[str, Any]:
    """The content of an official file."""
    del model
    return {"state_dict": state}


def resize_positions(params: Params, grid: int) -> Params:
    """The parameters themselves: convolutions fit every image size."""
    del grid
    return params
