"""Official files of MAGE: names, what they hold beyond the network, what their shapes tell."""

import logging
import re
from typing import Any

import numpy as np

from l2l_jax.lib.errors import WrongWeights
from l2l_jax.models import vqgan
from l2l_jax.models.layers import positions
from l2l_jax.models.mage import MAGE, SIZES, SPARE
from l2l_jax.types import Params
from l2l_jax.weights.formats import vqgan as vqgan_format
from l2l_jax.weights.formats._layers import vit_blocks
from l2l_jax.weights.name_map import EXTRA_KEY, Convert, Rule, linear, norm

log = logging.getLogger(__name__)

_first = Convert(lambda x: x[0], lambda x: x[None])  # [1, 1 + L, D] <-> [1 + L, D]
_bias = Convert(lambda x: x[0, 0], lambda x: x[None, None])  # [1, 1, V] <-> [V]

NAMES: list[Rule] = [
    Rule("token_emb.word_embeddings.weight", "encoder/words"),
    Rule("token_emb.position_embeddings.weight", "encoder/positions"),
    *norm("token_emb.LayerNorm", "encoder/norm_in"),
    *vit_blocks("blocks", "encoder/blocks"),
    *norm("norm", "encoder/norm"),
    *linear("decoder_embed", "decoder/embed"),
    Rule("decoder_pos_embed_learned", "decoder/positions", _first),
    *vit_blocks("decoder_blocks", "decoder/blocks"),
    *norm("decoder_norm", "decoder/norm"),
    *linear("mlm_layer.fc", "decoder/fc"),
    *norm("mlm_layer.ln", "decoder/ln"),
    Rule("mlm_layer.bias", "decoder/bias", _bias),
    Rule("mlm_layer.word_embeddings.weight", "decoder/words"),  # ours; officially always tied
    *vqgan_format.names("vqgan.", "tokenizer/"),
]

AMBIGUOUS = ("heads", "decoder_heads", "tokenizer")  # of an unpublished size
ACCEPTS_PART = {"vqgan": "tokenizer"}  # training can start from it; the rest is initialised

UNUSED = (  # parameters of the official class that no forward pass reads
    "cls_token",
    "pos_embed",
    "mask_token",
    "decoder_pos_embed",
    "token_emb.position_ids",
    "patch_embed.proj.weight",
    "patch_embed.proj.bias",
    "decoder_pred.weight",
    "decoder_pred.bias",
)


def from_torch(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An official state dict without what the network never uses."""
    return {name: value for name, value in state.items() if name not in UNUSED}


def to_torch(state: dict[str, np.ndarray], model: MAGE) -> dict[str, Any]:
    """The content of an official file, with what its class holds and never uses as zeros.

    If the decoder's words are no longer the encoder's, the official network, which ties them,
    decodes otherwise than this one: a warning says so, and the file holds them beside its "model",
    where the official code does not look.
    """
    del model
    words, own = state["token_emb.word_embeddings.weight"], "mlm_layer.word_embeddings.weight"
    extra = {}
    if own in state and not np.array_equal(state[own], words):
        extra = {EXTRA_KEY: {own: state[own]}}
        log.warning(
            "The decoder's words are not the encoder's any more. The official code ties them, so "
            "that there this model decodes otherwise; the file holds them beside the rest."
        )
    state = {name: value for name, value in state.items() if name != own}
    (_, width), (inner, _) = words.shape, state["decoder_embed.weight"].shape
    length = state["token_emb.position_embeddings.weight"].shape[0]
    side = 2 ** sum(
        bool(re.fullmatch(r"vqgan\.decoder\.up\.\d+\.upsample\..*bias", n)) for n in state
    )
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, length, width),
        "mask_token": (1, 1, inner),
        "decoder_pos_embed": (1, length, inner),
        "patch_embed.proj.weight": (width, 3, side, side),
        "patch_embed.proj.bias": (width,),
        "decoder_pred.weight": (3 * side * side, inner),
        "decoder_pred.bias": (3 * side * side,),
    }
    unused = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    ids = {"token_emb.position_ids": np.arange(length)[None]}
    return {"model": state | unused | ids, **extra}


def infer_args(state: dict[str, np.ndarray], about: dict[str, Any]) -> dict[str, Any]:
    """The `build` arguments of an official state dict; about: what the user says.

    Needed are, for a size nobody published, both numbers of heads. WrongWeights for a file without
    its tokenizer, or whose vocabulary is not that of its tokenizer.
    """
    if "token_emb.word_embeddings.weight" not in state:
        raise WrongWeights("This is not a MAGE: it has no token_emb.word_embeddings.")
    inner = {n.removeprefix("vqgan."): x for n, x in state.items() if n.startswith("vqgan.")}
    if not inner:
        raise WrongWeights(
            "This MAGE comes without its tokenizer: the file has no vqgan.* parameters. The "
            "published files (mage-vitb-1600.pth, mage-vitl-1600.pth) hold it."
        )
    needed = (
        "decoder_embed.weight",
        "token_emb.position_embeddings.weight",
        "decoder_pos_embed_learned",
        "mlm_layer.fc.weight",
    )
    if missing := [name for name in needed if name not in state]:
        raise WrongWeights(
            f"This MAGE is not a whole one: it lacks {', '.join(missing)}. The published files "
            "(mage-vitb-1600.pth, mage-vitl-1600.pth) hold encoder, decoder and tokenizer."
        )
    tokenizer = vqgan_format.infer_args(inner, dict(about.get("tokenizer", {})))
    codes, (vocabulary, width) = (
        inner["quantize.embedding.weight"].shape[0],
        state["token_emb.word_embeddings.weight"].shape,
    )
    if vocabulary != codes + SPARE:
        raise WrongWeights(
            f"The transformer knows {vocabulary} ids, {vocabulary - SPARE} of them codes, but the "
            f"tokenizer of this file has {codes} codes: they do not belong together."
        )
    shape = dict(width=width, depth=_depth(state, "blocks"))
    shape |= dict(decoder_width=state["decoder_embed.weight"].shape[0])
    shape |= dict(decoder_depth=_depth(state, "decoder_blocks"))
    model = vqgan.build(**tokenizer)
    cell = model.image_size // model.grid[0]
    side = round((state["token_emb.position_embeddings.weight"].shape[0] - 1) ** 0.5)
    del tokenizer["image_size"]
    args = {"image_size": side * cell, "tokenizer": tokenizer}
    for name, size in SIZES.items():
        if all(getattr(size, key) == value for key, value in shape.items()):
            return {"size": name, **args}
    if not ("heads" in about and "decoder_heads" in about):
        raise WrongWeights(
            f"This MAGE (width {width}, depth {shape['depth']}) is of no published size, and its "
            "numbers of heads leave no trace in the file; add --set heads=N --set decoder_heads=N."
        )
    heads = dict(heads=about["heads"], decoder_heads=about["decoder_heads"])
    return {"size": "base", **shape, **heads, **args}


def _depth(state: dict[str, np.ndarray], stack: str) -> int:
    return sum(bool(re.fullmatch(rf"{stack}\.\d+\.norm1\.bias", name)) for name in state)


def adapt(params: Params, model: MAGE) -> Params:
    """Parameters of a file for this model: a decoder that owns its words gets a copy of them."""
    encoder, decoder = params.get("encoder", {}), dict(params.get("decoder", {}))
    words, own = encoder.get("words"), decoder.get("words")
    if model.tying == "frozen" and own is None and words is not None:
        decoder["words"] = words
    if model.tying == "tied" and own is not None and np.array_equal(own, words):
        del decoder["words"]
    tokenizer = vqgan_format.adapt(params.get("tokenizer", {}), model.tokenizer)
    return params | {"decoder": decoder, "tokenizer": tokenizer}


def resize_positions(params: Params, grid: int) -> Params:
    """The same weights for another image size: both tables of positions are interpolated."""
    parts = {k: dict(params[k]) for k in ("encoder", "decoder")}
    for part in parts.values():
        part["positions"] = positions.resize(part["positions"], grid)
    return params | parts
