"""Images resized on the device, as Pillow and PyTorch resize them: two matrix products.

The way of resizing changes the figures that a feature network gives (Parmar et al., CVPR 2022), so
every feature network names one of these modes:

    clean       bicubic, antialiased, channels in float, clipped and not rounded: clean-fid's mode
    pillow      bicubic, antialiased, rounded to a byte after each direction: Pillow on uint8
    legacy      bilinear between pixel centres, not antialiased: pytorch-fid, torchvision's tensors

Values are in 0..255, float32; the products have full precision.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from l2l_jax.lib.errors import unknown_name

MODES = ("clean", "pillow", "legacy")


def _cubic(x: np.ndarray) -> np.ndarray:
    """The cubic kernel of Keys with a = -1/2; zero from |x| = 2 on."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _triangle(x: np.ndarray) -> np.ndarray:
    """The kernel of linear interpolation; zero from |x| = 1 on."""
    return np.maximum(1 - np.abs(x), 0.0)


@functools.lru_cache(maxsize=64)
def resize_matrix(size: int, to: int, mode: str) -> Float[np.ndarray, "to size"]:
    """The matrix that resizes a row of `size` pixels to `to` pixels; its rows sum to one."""
    if mode not in MODES:
        raise unknown_name("way of resizing", mode, MODES)
    kernel: Callable = _triangle if mode == "legacy" else _cubic
    stretch = 1.0 if mode == "legacy" else max(size / to, 1.0)  # antialiasing
    centres = (np.arange(to) + 0.5) * (size / to)
    if mode == "legacy":  # computes positions in float32
        centres = (np.arange(to, dtype=np.float32) + np.float32(0.5)) * np.float32(size / to)
        centres = np.clip(centres - np.float32(0.5), 0, size - 1) + 0.5
    distance = (np.arange(size) + 0.5 - centres[:, None]) / stretch
    values = kernel(distance)
    return (values / values.sum(axis=1, keepdims=True)).astype(np.float32)


def resize(
    images: Float[Array, "B H W C"], shape: tuple[int, int], mode: str
) -> Float[Array, "B height width C"]:
    """Images resized to shape = (height, width); values in 0..255 before and after.

    Rounds and clips also if the size does not change. ConfigError for an unknown mode.
    """
    rounded = mode == "pillow"
    exact = jax.lax.Precision.HIGHEST

    def along(x: Array, subscripts: str, size: int, to: int) -> Array:
        if size != to:
            x = jnp.einsum(subscripts, resize_matrix(size, to, mode), x, precision=exact)
        return jnp.clip(jnp.floor(x + 0.5), 0, 255) if rounded else x

    wide = along(images, "ow,bhwc->bhoc", images.shape[2], shape[1])
    resized = along(wide, "oh,bhwc->bowc", images.shape[1], shape[0])
    return jnp.clip(resized, 0, 255)


def resize_and_crop(
    images: Float[Array, "B H W C"], size: int, mode: str
) -> Float[Array, "B {size} {size} C"]:
    """Resizes the short side to `size`, then crops the central square."""
    sides = images.shape[1:3]
    height, width = (int(size * side / min(sides)) for side in sides)
    resized = resize(images, (height, width), mode)
    top, left = (round((side - size) / 2) for side in (height, width))
    return resized[:, top : top + size, left : left + size]
