"""Official files of MAGE."""

import logging
import re
from typing import Any

import numpy as np

from l2l_jax.lib.errors import WrongWeights
from l2l_jax.models import vqgan
from l2l_jax.models.layers import positions
from l2l_jax.models.mage import MAGE, SIZES, SPARE
from l2l_jax.types import Params, StateDict
from l2l_jax.weights.formats import vqgan as vqgan_format
from l2l_jax.weights.formats._layers import adapt_tying, count_blocks, vit_blocks, vit_size
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
    Rule(
        "mlm_layer.word_embeddings.weight", "decoder/words"
    ),  # ours; always tied in official files
    *vqgan_format.names("vqgan.", "tokenizer/"),
]

AMBIGUOUS = ("heads", "decoder_heads", "tokenizer")  # of an unpublished size
ACCEPTS_PART = {"vqgan": "tokenizer"}  # the other groups are initialised

UNUSED = (  # arrays of the official class that no forward pass reads
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


def from_torch(state: StateDict) -> StateDict:
    """An official state dict without the arrays that the network never uses."""
    return {name: value for name, value in state.items() if name not in UNUSED}


def to_torch(state: StateDict, model: MAGE) -> dict[str, Any]:
    """The content of an official file. Arrays that its class never uses are zeros.

    These are cls_token, pos_embed, mask_token, decoder_pos_embed and the weights and biases of
    patch_embed.proj and decoder_pred: official MAGE inherits them from MAE, no forward pass reads
    them, and no model here has them. token_emb.position_ids are the numbers of the positions. An
    official file that is imported and exported again therefore differs in these eight arrays.

    The official network ties the decoder's words to the encoder's. If they differ here, a warning
    is logged, and the file holds the decoder's under EXTRA_KEY, which the official code ignores.
    """
    del model
    words, own = state["token_emb.word_embeddings.weight"], "mlm_layer.word_embeddings.weight"
    extra = {}
    if own in state and not np.array_equal(state[own], words):
        extra = {EXTRA_KEY: {own: state[own]}}
        log.warning(
            "The decoder's word embeddings differ from the encoder's. The official code ties them, "
            "so there this model decodes otherwise; the file holds the decoder's under %r.",
            EXTRA_KEY,
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


def infer_args(state: StateDict, known: dict[str, Any]) -> dict[str, Any]:
    """The `build` arguments of an official state dict.

    known: settings of the user; an unpublished size needs both numbers of heads. WrongWeights for a
    file without its tokenizer, or with a vocabulary that does not fit its tokenizer.
    """
    if "token_emb.word_embeddings.weight" not in state:
        raise WrongWeights("This is not a MAGE: it has no token_emb.word_embeddings.")
    inner = {n.removeprefix("vqgan."): x for n, x in state.items() if n.startswith("vqgan.")}
    if not inner:
        raise WrongWeights(
            "This is a MAGE without its tokenizer: the file has no vqgan.* parameters. The "
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
            f"This MAGE is incomplete: it lacks {', '.join(missing)}. The published files "
            "(mage-vitb-1600.pth, mage-vitl-1600.pth) hold encoder, decoder and tokenizer."
        )
    tokenizer = vqgan_format.infer_args(inner, dict(known.get("tokenizer", {})))
    codes, (vocabulary, width) = (
        inner["quantize.embedding.weight"].shape[0],
        state["token_emb.word_embeddings.weight"].shape,
    )
    if vocabulary != codes + SPARE:
        raise WrongWeights(
            f"The transformer has {vocabulary} ids, {vocabulary - SPARE} of them codes, but the "
            f"tokenizer of this file has {codes} codes: they do not fit together."
        )
    dimensions = dict(width=width, depth=count_blocks(state, "blocks"))
    dimensions |= dict(decoder_width=state["decoder_embed.weight"].shape[0])
    dimensions |= dict(decoder_depth=count_blocks(state, "decoder_blocks"))
    model = vqgan.build(**tokenizer)
    cell = model.image_size // model.grid[0]
    side = round((state["token_emb.position_embeddings.weight"].shape[0] - 1) ** 0.5)
    del tokenizer["image_size"]
    args = {"image_size": side * cell, "tokenizer": tokenizer}
    return vit_size("MAGE", SIZES, dimensions, known) | args


def adapt(params: Params, model: MAGE) -> Params:
    """Parameters of a file for this model, whose tying may differ."""
    tokenizer = vqgan_format.adapt(params.get("tokenizer", {}), model.tokenizer)
    return adapt_tying(params, "words", model.tying) | {"tokenizer": tokenizer}


def resize_positions(params: Params, grid: int) -> Params:
    """Parameters for a grid of `grid` x `grid` tokens: both position tables are interpolated."""
    parts = {k: dict(params[k]) for k in ("encoder", "decoder")}
    for part in parts.values():
        part["positions"] = positions.resize(part["positions"], grid)
    return params | parts
