"""Official files of the masked autoencoder (facebookresearch/mae)."""

import re
from typing import Any

import numpy as np

from l2l_jax.lib.errors import WrongWeights
from l2l_jax.models.layers import positions
from l2l_jax.models.mae import SIZES
from l2l_jax.types import ImageToImage, Params
from l2l_jax.weights.formats._layers import vit_blocks
from l2l_jax.weights.name_map import Convert, Rule, linear, norm

_conv_patch = Convert(  # [D, 3, p, p] <-> [p * p * 3, D]
    lambda w: w.transpose(2, 3, 1, 0).reshape(-1, w.shape[0]),
    lambda k: k.T.reshape(k.shape[1], *[round((k.shape[0] / 3) ** 0.5)] * 2, 3).transpose(
        0, 3, 1, 2
    ),
)
_table = Convert(lambda x: x[0], lambda x: x[None])  # [1, 1 + L, D] <-> [1 + L, D]


NAMES: list[Rule] = [
    Rule("cls_token", "encoder/cls_token"),
    Rule("pos_embed", "positions/encoder", _table),
    Rule("patch_embed.proj.weight", "encoder/patch_embed/kernel", _conv_patch),
    Rule("patch_embed.proj.bias", "encoder/patch_embed/bias"),
    *vit_blocks("blocks", "encoder/blocks"),
    *norm("norm", "encoder/norm"),
    *linear("decoder_embed", "decoder/embed"),
    Rule("mask_token", "decoder/mask_token"),
    Rule("decoder_pos_embed", "positions/decoder", _table),
    *vit_blocks("decoder_blocks", "decoder/blocks"),
    *norm("decoder_norm", "decoder/norm"),
    *linear("decoder_pred", "decoder/pred"),
]

AMBIGUOUS = ("heads", "decoder_heads")  # what an official file of an unpublished size does not tell
WHOLE_FILES = "mae_visualize_vit_{base,large,huge}.pth (plain pixels, what completing images needs)"


def infer_args(state: dict[str, np.ndarray], about: dict[str, Any]) -> dict[str, Any]:
    """The `build` arguments of an official state dict.

    about: what the shapes do not tell: the training arguments stored in the file, its name as
    "file", and what the user says. Needed are norm_pix (else norm_pix_loss of the arguments, or the
    name: mae_pretrain_* was trained with it) and, for a size nobody published, both numbers of
    heads. WrongWeights for an encoder-only file, naming the whole one.
    """
    if "patch_embed.proj.weight" not in state or "pos_embed" not in state:
        raise WrongWeights("This is not a masked autoencoder: it has no patch_embed and pos_embed.")
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    depth = sum(name.startswith("blocks.") and name.endswith("norm1.bias") for name in state)
    if not any(name.startswith("decoder") for name in state):
        known = [n for n, s in SIZES.items() if (s.width, s.depth) == (width, depth)]
        full = f" or mae_pretrain_vit_{known[0]}_full.pth (normalised pixels)" if known else ""
        raise WrongWeights(
            f"This file holds the encoder only (ViT, width {width}, depth {depth}); without its "
            f"decoder nothing can be completed. Get the whole model: {WHOLE_FILES}{full}."
        )
    decoder_width = state["decoder_embed.weight"].shape[0]
    decoder_depth = sum(bool(re.fullmatch(r"decoder_blocks\.\d+\.norm1\.bias", n)) for n in state)
    shape = dict(width=width, depth=depth, patch=patch)
    shape |= dict(decoder_width=decoder_width, decoder_depth=decoder_depth)
    side = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    normalised = about.get("norm_pix_loss", "pretrain" in str(about.get("file", "")))
    args = {"image_size": side * patch, "norm_pix": bool(about.get("norm_pix", normalised))}
    for name, size in SIZES.items():
        if all(getattr(size, key) == value for key, value in shape.items()):
            return {"size": name, **args}
    if not ("heads" in about and "decoder_heads" in about):
        raise WrongWeights(
            f"This MAE (width {width}, depth {depth}) is of no published size, and its numbers of "
            "heads leave no trace in the file; add --set heads=N --set decoder_heads=N."
        )
    heads = dict(heads=about["heads"], decoder_heads=about["decoder_heads"])
    return {"size": "base", **shape, **heads, **args}


def to_torch(state: dict[str, np.ndarray], model: ImageToImage) -> dict[str, Any]:
    """The content of an official file."""
    del model
    return {"model": state}


def resize_positions(params: Params, grid: int) -> Params:
    """The same weights for another image size: both position tables are interpolated."""
    tables = {k: positions.resize(t, grid) for k, t in params["positions"].items()}
    return params | {"positions": tables}
