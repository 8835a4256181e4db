"""Scaled dot-product attention through one function, cuDNN's fused kernel where it may be used."""

import jax
import jax.numpy as jnp

from l2l_jax.lib import flops, precision
from l2l_jax.types import Array


def implementation(dtype: jnp.dtype, head_dim: int, masked: bool) -> str:
    """'cudnn' or 'xla'. cuDNN wants a modern GPU, half precision, a small head, and no mask."""
    half = dtype in (jnp.bfloat16, jnp.float16)
    fits = head_dim % 8 == 0 and head_dim <= 128
    fused = precision.modern_gpu() and not flops.counting()
    return "cudnn" if fused and half and fits and not masked else "xla"


def attention(q: Array, k: Array, v: Array, attend: Array | None = None) -> Array:
    """softmax(q k^T / sqrt(d)) v. q, k, v: [B, N, heads, d]; attend: [B, N] bool over keys."""
    mask = None if attend is None else attend[:, None, None, :]
    chosen = implementation(q.dtype, q.shape[-1], mask is not None)
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=chosen)
