"""What several official formats share: name rules of layers, published sizes, tying."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from l2l_jax.lib.errors import WrongWeights
from l2l_jax.types import Params, StateDict
from l2l_jax.weights.name_map import Convert, Rule, convolution, linear, norm


def vit_blocks(torch: str, ours: str) -> list[Rule]:
    """Rules for a stack of transformer blocks (timm's layout)."""
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    pairs = [(f"{torch}.{{i}}.{x}", f"{ours}/{{i}}/{x.replace('.', '/')}") for x in layers]
    rules = [rule for pair in pairs for rule in linear(*pair)]
    for x in ("norm1", "norm2"):
        rules += norm(f"{torch}.{{i}}.{x}", f"{ours}/{{i}}/{x}")
    return rules


_pointwise = Convert(  # a convolution over one axis, [out, in, 1] <-> [in, out]
    lambda w: w[:, :, 0].T, lambda k: k.T[:, :, None]
)


def embedding_names(torch: str, ours: str) -> list[Rule]:
    """Rules for the two layers of an `Embedding` (models/layers/unet.py)."""
    return linear(f"{torch}.0", f"{ours}/first") + linear(f"{torch}.2", f"{ours}/second")


def _layer_names(torch: str, ours: str) -> list[Rule]:
    return [
        *norm(f"{torch}.in_layers.0", f"{ours}/norm1"),
        *linear(f"{torch}.in_layers.2", f"{ours}/conv1", convolution),
        *linear(f"{torch}.emb_layers.1", f"{ours}/level"),
        *norm(f"{torch}.out_layers.0", f"{ours}/norm2"),
        *linear(f"{torch}.out_layers.3", f"{ours}/conv2", convolution),
        *linear(f"{torch}.skip_connection", f"{ours}/shortcut", convolution),
        *norm(f"{torch}.norm", f"{ours}/norm"),
        *linear(f"{torch}.qkv", f"{ours}/qkv", _pointwise),
        *linear(f"{torch}.proj_out", f"{ours}/proj", _pointwise),
        *linear(torch, f"{ours}/conv", convolution),
    ]


def unet_names(torch: str) -> list[Rule]:
    """Rules for the whole U-Net; torch: the official name of its module with a trailing dot."""
    return [
        *embedding_names(f"{torch}cond_embed", "encoder/embed"),
        *_layer_names(f"{torch}input_blocks.{{i}}.{{j}}", "encoder/blocks/{i}/{j}"),
        *_layer_names(f"{torch}middle_block.{{j}}", "encoder/middle/{j}"),
        *_layer_names(f"{torch}output_blocks.{{i}}.{{j}}", "decoder/blocks/{i}/{j}"),
        *norm(f"{torch}out.0", "decoder/norm_out"),
        *linear(f"{torch}out.2", "decoder/conv_out", convolution),
    ]


def published_size(sizes: Mapping[str, Any], dimensions: Mapping[str, Any]) -> str:
    """The name of the first size whose fields have these values, or ''."""
    matching = (
        name
        for name, size in sizes.items()
        if all(getattr(size, key) == value for key, value in dimensions.items())
    )
    return next(matching, "")


def vit_size(
    model: str, sizes: Mapping[str, Any], dimensions: Mapping[str, Any], known: Mapping[str, Any]
) -> dict[str, Any]:
    """`build` arguments for the size of a pair of ViTs: its name, or all its dimensions.

    The numbers of heads leave no trace in a file. WrongWeights if the size is not published and
    `known` does not hold both.
    """
    if name := published_size(sizes, dimensions):
        return {"size": name}
    if not ("heads" in known and "decoder_heads" in known):
        raise WrongWeights(
            f"This {model} (width {dimensions['width']}, depth {dimensions['depth']}) has no "
            "published size, and the file does not determine its numbers of heads; add "
            "--set heads=N --set decoder_heads=N."
        )
    heads = {key: known[key] for key in ("heads", "decoder_heads")}
    return {"size": "base", **dimensions, **heads}


def count_blocks(state: StateDict, stack: str) -> int:
    """Number of transformer blocks of the stack with this official name."""
    return sum(bool(re.fullmatch(rf"{stack}\.\d+\.norm1\.bias", name)) for name in state)


def adapt_tying(params: Params, name: str, tying: str) -> Params:
    """The parameters with the decoder's own copy of encoder/`name`, or without it.

    A frozen decoder that lacks a copy gets one. A tied decoder loses its copy, unless the copy
    differs from the original.
    """
    encoder, decoder = params.get("encoder", {}), dict(params.get("decoder", {}))
    original, own = encoder.get(name), decoder.get(name)
    if tying == "frozen" and own is None and original is not None:
        decoder[name] = original
    if tying == "tied" and own is not None and original is not None:
        equal = jax.tree.map(np.array_equal, own, original)
        if all(jax.tree.leaves(equal)):
            del decoder[name]
    return params | {"decoder": decoder}
