"""The transformer block of ViT, and stacks of it: a list of blocks, or one scanned block.

Dosovitskiy et al. 2021; LayerNorm before each branch, exact (erf) GELU, biases everywhere. The
published MAE and MAGE weights were trained with LayerNorm epsilon 1e-6.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.sharding import split_rows
from l2l_jax.models.layers.attention import attention
from l2l_jax.types import Array

EPSILON = 1e-6
Dtype = type  # jnp.float32 or jnp.bfloat16: what a layer computes in
Features = Float[Array, "B N D"]
Attend = Bool[Array, "B N"]  # whether a token is attended to


def linear(inner: int, outer: int, dtype: Dtype, rngs: nnx.Rngs) -> nnx.Linear:
    """A dense layer, initialised as in ViT: Xavier-uniform kernel, zero bias, float32."""
    xavier = nnx.initializers.xavier_uniform()
    return nnx.Linear(inner, outer, kernel_init=xavier, dtype=dtype, rngs=rngs)


class Attention(nnx.Module):
    """Multi-head self-attention; one projection for q, k and v, laid out (3, heads, head width)."""

    def __init__(self, width: int, heads: int, dtype: Dtype, rngs: nnx.Rngs):
        if width % heads:
            raise ValueError(f"A width of {width} cannot be split into {heads} heads.")
        self.heads = heads
        self.qkv = linear(width, 3 * width, dtype, rngs)
        self.proj = linear(width, width, dtype, rngs)

    def __call__(self, x: Features, attend: Attend | None = None) -> Features:
        b, n, d = x.shape
        qkv = split_rows(self.qkv(x)).reshape(b, n, 3, self.heads, d // self.heads)
        mixed = attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], attend)
        return self.proj(mixed.reshape(b, n, d))


class Mlp(nnx.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, width: int, hidden: int, dtype: Dtype, rngs: nnx.Rngs):
        self.fc1 = linear(width, hidden, dtype, rngs)
        self.fc2 = linear(hidden, width, dtype, rngs)

    def __call__(self, x: Features) -> Features:
        return self.fc2(jax.nn.gelu(split_rows(self.fc1(x)), approximate=False))


class Block(nnx.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x)). x: [B, N, D]."""

    def __init__(self, width: int, heads: int, dtype: Dtype, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.attn = Attention(width, heads, dtype, rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(width, 4 * width, dtype, rngs)

    def __call__(self, x: Features, attend: Attend | None = None) -> Features:
        x = split_rows(x + self.attn(self.norm1(x), attend))
        return split_rows(x + self.mlp(self.norm2(x)))


def make_blocks(
    depth: int, width: int, heads: int, dtype: Dtype, scan: bool, rngs: nnx.Rngs
) -> nnx.Module:
    """`depth` blocks: a list, or one block whose arrays have a leading depth axis (scan)."""
    if not scan:
        return nnx.List([Block(width, heads, dtype, rngs) for _ in range(depth)])

    @nnx.split_rngs(splits=depth)
    @nnx.vmap(in_axes=0, out_axes=0)
    def stacked(rngs: nnx.Rngs) -> Block:
        return Block(width, heads, dtype, rngs)

    return stacked(rngs)


def check_widths(size: Any, multiple: int = 1) -> None:
    """ConfigError unless the heads divide the widths of encoder and decoder, and `multiple` too.

    size: has width, heads, decoder_width and decoder_heads.
    """
    for prefix in ("", "decoder_"):
        width, heads = getattr(size, f"{prefix}width"), getattr(size, f"{prefix}heads")
        if width % heads or width % multiple:
            also = f" and by {multiple}" if multiple > 1 else ""
            raise ConfigError(
                f"model.args.{prefix}width={width} must be divisible by its {heads} heads"
                f"{also}; change it, or model.args.{prefix}heads."
            )


@dataclasses.dataclass(frozen=True)
class Stack:
    """Settings of a stack of blocks."""

    width: int
    depth: int
    heads: int
    dtype: Dtype
    scan: bool = False
    remat: bool = False

    def blocks(self, rngs: nnx.Rngs) -> nnx.Module:
        return make_blocks(self.depth, self.width, self.heads, self.dtype, self.scan, rngs)

    def norm(self, rngs: nnx.Rngs) -> nnx.LayerNorm:
        return nnx.LayerNorm(self.width, epsilon=EPSILON, dtype=self.dtype, rngs=rngs)


def apply_blocks(
    blocks: nnx.Module, x: Features, attend: Attend | None = None, remat: bool = False
) -> Features:
    """Runs the stack. remat recomputes each block in the backward pass."""
    step, states = _steps(blocks, attend, remat)
    if isinstance(states, list):
        return functools.reduce(step, states, split_rows(x))
    return jax.lax.scan(lambda x, state: (step(x, state), None), split_rows(x), states)[0]


def block_outputs(blocks: nnx.Module, x: Features, attend: Attend | None = None) -> list[Features]:
    """The output of every block of the stack, in order."""
    step, states = _steps(blocks, attend)
    if isinstance(states, list):
        return list(itertools.accumulate(states, step, initial=split_rows(x)))[1:]

    def body(x: Features, state: Any) -> tuple[Features, Features]:
        x = step(x, state)
        return x, x

    return list(jax.lax.scan(body, split_rows(x), states)[1])


def _steps(
    blocks: nnx.Module, attend: Attend | None, remat: bool = False
) -> tuple[Callable[[Features, Any], Features], Any]:
    """(x and the state of a block -> what the block returns, states: a list, or stacked)."""
    scanned = not isinstance(blocks, nnx.List)
    parts = [nnx.split(block) for block in ([blocks] if scanned else blocks)]
    graph, states = parts[0][0], [state for _, state in parts]

    def step(x: Features, state: Any) -> Features:
        return nnx.merge(graph, state)(x, attend)

    if remat:
        step = jax.checkpoint(step, prevent_cse=not scanned)
    return step, states[0] if scanned else states


def mean_tokens(x: Features, attend: Attend | None = None) -> Float[Array, "B D"]:
    """[B, D] float32: the mean over the tokens that are attended to."""
    weights = jnp.ones(x.shape[:2]) if attend is None else attend.astype(jnp.float32)
    total = jnp.einsum("bnd,bn->bd", x.astype(jnp.float32), weights)
    return total / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1)
