"""Scaled dot-product attention, by cuDNN's fused kernel where that is possible."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from l2l_jax.lib import flops, precision, second_order
from l2l_jax.types import Array

Heads = Float[Array, "B N heads d"]


def implementation(dtype: jnp.dtype, head_dim: int, masked: bool) -> Literal["cudnn", "xla"]:
    """The backend. cuDNN needs a modern GPU, half precision, a small head, and no mask.

    It has a first derivative only.
    """
    half = dtype in (jnp.bfloat16, jnp.float16)
    fits = head_dim % 8 == 0 and head_dim <= 128
    fused = precision.modern_gpu() and not flops.counting() and not second_order.twice()
    return "cudnn" if fused and half and fits and not masked else "xla"


def attention(q: Heads, k: Heads, v: Heads, attend: Bool[Array, "B N"] | None = None) -> Heads:
    """softmax(q k^T / sqrt(d)) v. attend: which keys are attended to; None: all."""
    mask = None if attend is None else attend[:, None, None, :]
    chosen = implementation(q.dtype, q.shape[-1], mask is not None)
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=chosen)
