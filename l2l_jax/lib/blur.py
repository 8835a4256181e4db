"""Masks grown and blurred on the device; the blur is bit for bit that of Pillow on uint8.

Pillow approximates a Gaussian by three box filters in each direction, with fractional edges and
rounding after every pass (Gwosdek et al. 2011). The released evaluation blends with such a mask.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

PASSES = 3


def grow_mask(
    mask: Bool[Array | np.ndarray, "B h w"], by: int, after: int | None = None
) -> Bool[Array | np.ndarray, "B h w"]:
    """The mask, True also for cells up to `by` cells away, diagonals included.

    after: how far it grows to the right and downwards, if that is another distance.
    """
    after = by if after is None else after
    if not by and not after:
        return mask
    window, strides = (1, by + after + 1, by + after + 1), (1, 1, 1)
    padding = ((0, 0), (after, by), (after, by))
    return jax.lax.reduce_window(mask, False, jax.lax.bitwise_or, window, strides, padding)


def box_radius(radius: int | float) -> float:
    """The radius of a box filter whose three passes have the variance of a Gaussian of `radius`."""
    variance = radius**2 / PASSES
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    return whole + part / (6 * (variance - (whole + 1) ** 2))


def gaussian_blur(
    mask: Bool[Array | np.ndarray, "B H W"], radius: int | float
) -> Float[Array, "B H W"]:
    """The blurred mask, float32 in [0, 1] in steps of 1/255. Edge values continue outside."""
    x = jnp.asarray(mask).astype(jnp.uint32) * 255
    for axis in (2, 1):
        for _ in range(PASSES):
            x = _box(x, box_radius(radius), axis)
    return x.astype(jnp.float32) / 255.0


def _box(x: UInt32[Array, "B H W"], radius: float, axis: int) -> UInt32[Array, "B H W"]:
    """One pass over values 0..255 in 32-bit fixed point: 255 * 2^24 < 2^32, so no overflow."""
    whole = int(radius)
    weight = int((1 << 24) / (radius * 2 + 1))
    edge = ((1 << 24) - (whole * 2 + 1) * weight) // 2
    margin = [(whole + 1, whole + 1) if at == axis else (0, 0) for at in range(3)]
    padded, size = jnp.pad(x, margin, mode="edge"), x.shape[axis]
    shifted = [
        jax.lax.slice_in_dim(padded, at, at + size, axis=axis) for at in range(2 * whole + 3)
    ]
    inside, outside = sum(shifted[1:-1]), shifted[0] + shifted[-1]
    total = inside * jnp.uint32(weight) + outside * jnp.uint32(edge) + jnp.uint32(1 << 23)
    return total >> 24
