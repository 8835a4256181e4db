"""Puts tokens into another order; the gradient does so backwards.

The gradient of a gather is a sum into places, one after the other. For a permutation, where every
place gets one token, it is the gather with the inverse permutation, which devices do at once.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from l2l_jax.types import Array

Tokens = Float[Array, "B N D"]
Order = Int[Array, "B N"]


@jax.custom_vjp
def permuted(x: Tokens, order: Order) -> Tokens:
    """[B, N, D]: token order[b, n] of image b at place n; each row of `order` is a permutation."""
    return jnp.take_along_axis(x, order[..., None], axis=1)


def _forward(x: Tokens, order: Order) -> tuple[Tokens, Order]:
    return permuted(x, order), order


def _backward(order: Order, gradient: Tokens) -> tuple[Tokens, None]:
    return permuted(gradient, jnp.argsort(order, axis=1)), None


permuted.defvjp(_forward, _backward)
