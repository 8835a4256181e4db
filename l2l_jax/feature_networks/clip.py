"""The image half of CLIP (Radford et al. 2021), as OpenCLIP trained it on LAION-2B.

Paper A embeds with ViT-H/14; ViT-B/32 is for small machines, and its figures are others. The
embedding is the class token's after the last norm and the projection, not normalised. Images are
resized as Pillow does on bytes (bicubic, short side, central square), then standardised.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l_jax.lib import precision, resample, state_dicts
from l2l_jax.lib.errors import unknown
from l2l_jax.lib.nnx_pure import Pure
from l2l_jax.types import RANDOM_WEIGHTS, Array, FeatureNetwork, NetworkContext, Params

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
EPSILON = 1e-5


class Size(NamedTuple):
    """image and patch in pixels; head: width of one; file: the official one, if any."""

    width: int
    depth: int
    head: int
    patch: int
    image: int
    embedding: int
    file: str = RANDOM_WEIGHTS


SIZES = {
    "h14": Size(1280, 32, 80, 14, 224, 1024, "CLIP-ViT-H-14-laion2B-s32B-b79K.bin"),
    "b32": Size(768, 12, 64, 32, 224, 512, "CLIP-ViT-B-32-laion2B-s34B-b79K.bin"),
    "tiny": Size(80, 2, 20, 14, 56, 48),  # for tests: nobody has trained one
}


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), with exact GELU."""

    def __init__(self, size: Size, dtype: type, rngs: nnx.Rngs):
        def linear(inner: int, outer: int) -> nnx.Linear:
            return nnx.Linear(inner, outer, dtype=dtype, rngs=rngs)

        width, self.heads = size.width, size.width // size.head
        self.ln_1 = nnx.LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)
        self.ln_2 = nnx.LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.fc, self.proj = linear(width, 4 * width), linear(4 * width, width)

    def __call__(self, x: Array) -> Array:
        qkv = self.qkv(self.ln_1(x))
        q, k, v = (p.reshape(*x.shape[:2], self.heads, -1) for p in jnp.split(qkv, 3, axis=-1))
        x = x + self.out(jax.nn.dot_product_attention(q, k, v).reshape(x.shape))
        return x + self.proj(jax.nn.gelu(self.fc(self.ln_2(x)), approximate=False))


class Network(nnx.Module):
    """[B, image, image, 3] standardised -> [B, embedding]."""

    def __init__(self, size: Size, dtype: type, rngs: nnx.Rngs):
        draw, cells = nnx.initializers.normal(0.02), (size.image // size.patch) ** 2
        patch = (size.patch, size.patch)
        self.conv = nnx.Conv(
            3, size.width, patch, strides=patch, padding="VALID", use_bias=False, dtype=dtype,
            rngs=rngs,
        )  # fmt: skip
        self.token = nnx.Param(draw(rngs.params(), (size.width,)))
        self.positions = nnx.Param(draw(rngs.params(), (cells + 1, size.width)))
        self.ln_pre = nnx.LayerNorm(size.width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([Block(size, dtype, rngs) for _ in range(size.depth)])
        self.ln_post = nnx.LayerNorm(size.width, epsilon=EPSILON, dtype=jnp.float32, rngs=rngs)
        self.proj = nnx.Param(draw(rngs.params(), (size.width, size.embedding)))

    def __call__(self, x: Array) -> Array:
        patches = self.conv(x)
        patches = patches.reshape(x.shape[0], -1, patches.shape[-1])
        token = jnp.broadcast_to(self.token[...], (x.shape[0], 1, patches.shape[-1]))
        x = jnp.concatenate([token.astype(patches.dtype), patches], axis=1)
        x = self.ln_pre(x + self.positions[...].astype(x.dtype))
        for block in self.blocks:
            x = block(x)
        return self.ln_post(x[:, 0]) @ self.proj[...]


def file(*, size: str, weights: str, **_: Any) -> str:
    """The file that `build` needs with these arguments."""
    if size not in SIZES:
        raise unknown("size of clip", size, SIZES)
    return weights or SIZES[size].file


def build(
    context: NetworkContext,
    *,
    size: str = "h14",
    weights: str = "",
    dtype: str = "float32",
) -> FeatureNetwork:
    """The tower of a size; no logits.

    weights: a file, "" for the official one (weights/feature_networks.py says where it is looked
    for), or "random", whose figures are marked as such. DataMissing if there is no such file.
    """
    spec = file(size=size, weights=weights)
    number, chosen = precision.compute_dtype(dtype), SIZES[size]
    network = Pure(functools.partial(Network, chosen, number))

    def apply(params: Params, images: Array) -> tuple[Array, Array]:
        shown = resample.cover(images * 255.0, chosen.image, "pillow") / 255.0
        with precision.exact(number):
            embedded = network.bind(params)((shown - MEAN) / STD)
        return embedded, jnp.zeros((len(images), 0))

    params, source = context.load(spec, network.template, from_torch)
    resize = f"pillow, {chosen.image}x{chosen.image}"
    about = {"size": size, "resize": resize, **source, "dtype": jnp.dtype(number).name}
    return FeatureNetwork("clip", about, params, apply)


def from_torch(state: Mapping[str, np.ndarray], path: Path) -> Params:
    """The visual part of an OpenCLIP state dict."""
    official = state_dicts.taker(state, path)

    def take(name: str) -> np.ndarray:
        return official(f"visual.{name}")

    def norm(name: str) -> Params:
        return {"scale": take(f"{name}.weight"), "bias": take(f"{name}.bias")}

    def linear(weight: str, bias: str) -> Params:
        return {"kernel": take(weight).T, "bias": take(bias)}

    def block(name: str) -> Params:
        attn, mlp = f"{name}.attn", f"{name}.mlp"
        return {
            "ln_1": norm(f"{name}.ln_1"),
            "qkv": linear(f"{attn}.in_proj_weight", f"{attn}.in_proj_bias"),
            "out": linear(f"{attn}.out_proj.weight", f"{attn}.out_proj.bias"),
            "ln_2": norm(f"{name}.ln_2"),
            "fc": linear(f"{mlp}.c_fc.weight", f"{mlp}.c_fc.bias"),
            "proj": linear(f"{mlp}.c_proj.weight", f"{mlp}.c_proj.bias"),
        }

    at, blocks = "visual.transformer.resblocks.{}.ln_1.weight", {}
    while at.format(len(blocks)) in state:
        blocks[len(blocks)] = block(f"transformer.resblocks.{len(blocks)}")
    return {
        "conv": {"kernel": take("conv1.weight").transpose(2, 3, 1, 0)},
        "token": take("class_embedding"),
        "positions": take("positional_embedding"),
        "ln_pre": norm("ln_pre"),
        "blocks": blocks,
        "ln_post": norm("ln_post"),
        "proj": take("proj"),
    }
