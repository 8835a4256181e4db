"""Official files of the masked autoencoder (facebookresearch/mae)."""

from typing import Any

from l2l_jax.lib.errors import WrongWeights
from l2l_jax.models.layers import positions
from l2l_jax.models.mae import SIZES
from l2l_jax.types import ImageToImage, Params, StateDict
from l2l_jax.weights.formats._layers import count_blocks, published_size, vit_blocks, vit_size
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

AMBIGUOUS = ("heads", "decoder_heads")  # of an unpublished size
WHOLE_FILES = "mae_visualize_vit_{base,large,huge}.pth (plain pixels, needed to complete images)"


def infer_args(state: StateDict, known: dict[str, Any]) -> dict[str, Any]:
    """The `build` arguments of an official state dict.

    known: the training arguments stored in the file, its name as "file", and settings of the user.
    norm_pix is the first that exists of norm_pix, norm_pix_loss, and whether the name says
    "pretrain" (those files were trained with it). An unpublished size needs both numbers of heads.
    WrongWeights for an encoder-only file names the file that holds the whole model.
    """
    if "patch_embed.proj.weight" not in state or "pos_embed" not in state:
        raise WrongWeights("This is not a masked autoencoder: it has no patch_embed and pos_embed.")
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    depth = count_blocks(state, "blocks")
    if not any(name.startswith("decoder") for name in state):
        name = published_size(SIZES, dict(width=width, depth=depth))
        full = f" or mae_pretrain_vit_{name}_full.pth (normalised pixels)" if name else ""
        raise WrongWeights(
            f"This file holds the encoder only (ViT, width {width}, depth {depth}); without the "
            f"decoder it cannot complete images. Get the whole model: {WHOLE_FILES}{full}."
        )
    dimensions = dict(width=width, depth=depth, patch=patch)
    dimensions |= dict(decoder_width=state["decoder_embed.weight"].shape[0])
    dimensions |= dict(decoder_depth=count_blocks(state, "decoder_blocks"))
    side = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    normalised = known.get("norm_pix_loss", "pretrain" in str(known.get("file", "")))
    args = {"image_size": side * patch, "norm_pix": bool(known.get("norm_pix", normalised))}
    return vit_size("MAE", SIZES, dimensions, known) | args


def to_torch(state: StateDict, model: ImageToImage) -> dict[str, Any]:
    """The content of an official file."""
    del model
    return {"model": state}


def resize_positions(params: Params, grid: int) -> Params:
    """Parameters for a grid of `grid` x `grid` patches: both position tables are interpolated."""
    tables = {k: positions.resize(t, grid) for k, t in params["positions"].items()}
    return params | {"positions": tables}
