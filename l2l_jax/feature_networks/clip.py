"""The image encoder of CLIP (Radford et al. 2021), as OpenCLIP trained it on LAION-2B.

Paper A embeds images with ViT-H/14; ViT-B/32 is for small machines and gives other figures. The
embedding is that of the class token after the last norm and the projection, not normalised. Images
are resized as Pillow does on bytes (bicubic, short side, central square), then standardised.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from l2l_jax.lib import precision, resample, state_dicts
from l2l_jax.lib.errors import unknown_name
from l2l_jax.lib.nnx_pure import PureModule
from l2l_jax.types import RANDOM_WEIGHTS, Bounds, FeatureNetwork, Images, NetworkContext, Params

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
EPSILON = 1e-5


class Size(NamedTuple):
    """Dimensions of a network. image, patch: sides in pixels; head: width of one attention head.

    file: the official weights file, if there is one.
    """

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
    "tiny": Size(80, 2, 20, 14, 56, 48),  # for tests; there are no trained weights
}
BOUNDS = {"size": Bounds(choices=tuple(SIZES)), "dtype": Bounds(choices=precision.DTYPES)}


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

    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        qkv = self.qkv(self.ln_1(x))
        q, k, v = (p.reshape(*x.shape[:2], self.heads, -1) for p in jnp.split(qkv, 3, axis=-1))
        x = x + self.out(jax.nn.dot_product_attention(q, k, v).reshape(x.shape))
        return x + self.proj(jax.nn.gelu(self.fc(self.ln_2(x)), approximate=False))


class Network(nnx.Module):
    """[B, image, image, 3] standardised -> [B, embedding]."""

    def __init__(self, size: Size, dtype: type, rngs: nnx.Rngs):
        normal, cells = nnx.initializers.normal(0.02), (size.image // size.patch) ** 2
        patch = (size.patch, size.patch)
        self.conv = nnx.Conv(
            3, size.width, patch, strides=patch, padding="VALID", use_bias=False, dtype=dtype,
            rngs=rngs,
        )  # fmt: skip
        self.token = nnx.Param(normal(rngs.params(), (size.width,)))
        self.positions = nnx.Param(normal(rngs.params(), (cells + 1, size.width)))
        self.ln_pre = nnx.LayerNorm(size.width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([Block(size, dtype, rngs) for _ in range(size.depth)])
        self.ln_post = nnx.LayerNorm(size.width, epsilon=EPSILON, dtype=jnp.float32, rngs=rngs)
        self.proj = nnx.Param(normal(rngs.params(), (size.width, size.embedding)))

    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B D"]:
        patches = self.conv(x)
        patches = patches.reshape(x.shape[0], -1, patches.shape[-1])
        token = jnp.broadcast_to(self.token[...], (x.shape[0], 1, patches.shape[-1]))
        x = jnp.concatenate([token.astype(patches.dtype), patches], axis=1)
        x = self.ln_pre(x + self.positions[...].astype(x.dtype))
        for block in self.blocks:
            x = block(x)
        return self.ln_post(x[:, 0]) @ self.proj[...]


def file(*, size: str, weights: str, **_: Any) -> str:
    """The weights file that `build` needs with these arguments."""
    if size not in SIZES:
        raise unknown_name("size of clip", size, SIZES)
    return weights or SIZES[size].file


def build(
    context: NetworkContext,
    *,
    size: str = "h14",
    weights: str = "",
    dtype: str = "float32",
) -> FeatureNetwork:
    """The network of a key of SIZES; it gives no logits.

    weights: a file, "" for the official one (weights/feature_networks.py searches for it), or
    "random", which the report marks as such. DataMissing if the file does not exist.
    """
    spec = file(size=size, weights=weights)
    compute_dtype, dimensions = precision.compute_dtype(dtype), SIZES[size]
    network = PureModule(functools.partial(Network, dimensions, compute_dtype))

    def apply(params: Params, images: Images) -> tuple[Float[Array, "B D"], Float[Array, "B 0"]]:
        resized = resample.resize_and_crop(images * 255.0, dimensions.image, "pillow") / 255.0
        with precision.full_precision(compute_dtype):
            embeddings = network.bind(params)((resized - MEAN) / STD)
        return embeddings, jnp.zeros((len(images), 0))

    params, source = context.load(spec, network.template, from_torch)
    resize = f"pillow, {dimensions.image}x{dimensions.image}"
    about = {"size": size, "resize": resize, **source, "dtype": jnp.dtype(compute_dtype).name}
    return FeatureNetwork("clip", about, params, apply)


def from_torch(state: Mapping[str, np.ndarray], path: Path) -> Params:
    """Parameters from the visual part of an OpenCLIP state dict. path: named in errors."""
    official = state_dicts.array_reader(state, path)

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

    first_name, blocks = "visual.transformer.resblocks.{}.ln_1.weight", {}
    while first_name.format(len(blocks)) in state:
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
