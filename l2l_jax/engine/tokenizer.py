"""How well the tokenizer of a model represents held-out images."""

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.data import images as pictures
from l2l_jax.engine.completions import Completer
from l2l_jax.lib import pixels
from l2l_jax.types import Array, Params, TokenModel


def measure(completer: Completer, model: TokenModel, params: Params) -> dict[str, dict[str, float]]:
    """{side: {"psnr" in dB, "codebook_usage" in [0, 1], "codebook_perplexity"}} of whole images.

    The picture tokenizer_<side> shows images above and their decoded tokens below, of the sides
    that may be shown.
    """

    @jax.jit
    def program(params: Params, images: Array) -> dict[str, Array]:
        real = pixels.to_unit_range(images)
        tokens = model.tokenize(params, real)
        rounded = jnp.round(jnp.clip(model.detokenize(params, tokens), 0, 1) * 255)
        decoded = rounded.astype(jnp.uint8)
        mse = jnp.mean((pixels.to_unit_range(decoded) - real) ** 2, axis=(1, 2, 3))
        return {"images": images, "completed": decoded, "mse": mse, "tokens": tokens}

    figures = {}
    for side in completer.sides:
        columns = completer.over_batches(side, lambda images, _: program(params, images))
        rows = [columns["images"], columns["completed"]]
        if side in completer.shown:
            completer.keep_picture(f"tokenizer_{side}", pictures.sheet(rows))
        share = np.bincount(columns["tokens"].ravel(), minlength=model.codes)
        share = share / share.sum()
        entropy = -np.sum(share[share > 0] * np.log(share[share > 0]))
        figures[side] = {
            "psnr": float(np.mean(pixels.psnr(columns["mse"]))),
            "codebook_usage": float(np.mean(share > 0)),
            "codebook_perplexity": float(np.exp(entropy)),
        }
    return figures
