"""Group normalisation (Wu & He, ECCV 2018) with its gradient written out, for channels last.

Sums run over the positions first and then over the channels of a group, so that the inner loop is
over whole channels, of which a group may have one or two. The gradient takes two passes over the
feature map; differentiating the mean and the variance by themselves takes more.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from l2l_jax.types import Array

Map = Float[Array, "B h w C"]
Row = Float[Array, "B 1 1 C"]  # a number for each image and channel
Channels = Float[Array | np.ndarray, " C"]  # parameters may be on the host
Saved = tuple[Map, Channels, Row, Row]


class GroupNorm(nnx.GroupNorm):
    """nnx.GroupNorm of feature maps: statistics in float32, the variance around the mean."""

    def __call__(self, x: Map) -> Map:  # type: ignore[override]  # maps only, without a mask
        assert self.scale is not None
        assert self.bias is not None
        given = x.astype(jnp.float32), self.scale[...], self.bias[...]
        made: Array = normalise(*given, self.num_groups, self.epsilon)
        return made.astype(self.dtype or x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalise(x: Map, scale: Channels, bias: Channels, groups: int, epsilon: float) -> Map:
    """scale (x - mean) / sqrt(variance + epsilon) + bias, over the positions and a group."""
    return _forward(x, scale, bias, groups, epsilon)[0]


def _forward(
    x: Map, scale: Channels, bias: Channels, groups: int, epsilon: float
) -> tuple[Map, Saved]:
    mean = _mean(jnp.mean(x, axis=(1, 2)), groups)
    variance = _mean(jnp.mean((x - mean) ** 2, axis=(1, 2)), groups)
    inverse = jax.lax.rsqrt(variance + epsilon)
    return (x - mean) * (inverse * scale) + bias, (x, scale, mean, inverse)


def _backward(groups: int, epsilon: float, saved: Saved, dy: Map) -> tuple[Map, Channels, Channels]:
    del epsilon
    x, scale, mean, inverse = saved
    normal, positions = (x - mean) * inverse, x.shape[1] * x.shape[2]
    by_bias, by_scale = jnp.sum(dy, axis=(1, 2)), jnp.sum(dy * normal, axis=(1, 2))
    shift, slope = (_mean(each * scale / positions, groups) for each in (by_bias, by_scale))
    dx = inverse * (dy * scale - shift - normal * slope)
    return dx, jnp.sum(by_scale, axis=0), jnp.sum(by_bias, axis=0)


normalise.defvjp(_forward, _backward)


def _mean(values: Float[Array, "B C"], groups: int) -> Row:
    """The mean over the channels of each group, for every channel."""
    b, c = values.shape
    means = jnp.mean(values.reshape(b, groups, c // groups), axis=-1, keepdims=True)
    return jnp.broadcast_to(means, (b, groups, c // groups)).reshape(b, 1, 1, c)
