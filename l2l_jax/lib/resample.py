"""Images resized on the device, as Pillow and PyTorch resize them: two matrix products.

What a network is shown decides its figures (Parmar et al., CVPR 2022), so every judge names one of
these modes:

    clean       bicubic, antialiased, channels in float, clipped and not rounded: clean-fid's mode
    pillow      bicubic, antialiased, rounded to a byte after each direction: Pillow on uint8
    legacy      bilinear between pixel centres, not antialiased: pytorch-fid, torchvision's tensors

Values are 0..255 in float32, products in full precision.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.lib.errors import unknown
from l2l_jax.types import Array

MODES = ("clean", "pillow", "legacy")


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -1/2, of support 2."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0.0)


@functools.lru_cache(maxsize=64)
def weights(size: int, to: int, mode: str) -> np.ndarray:
    """[to, size] float32: what each of `size` pixels adds to each of `to`; rows sum to one."""
    if mode not in MODES:
        raise unknown("way of resizing", mode, MODES)
    kernel: Callable = _triangle if mode == "legacy" else _cubic
    stretch = 1.0 if mode == "legacy" else max(size / to, 1.0)  # antialiasing widens the kernel
    centres = (np.arange(to) + 0.5) * (size / to)
    if mode == "legacy":  # whose pixel positions are float32
        centres = (np.arange(to, dtype=np.float32) + np.float32(0.5)) * np.float32(size / to)
        centres = np.clip(centres - np.float32(0.5), 0, size - 1) + 0.5
    away = (np.arange(size) + 0.5 - centres[:, None]) / stretch
    found = kernel(away)
    return (found / found.sum(axis=1, keepdims=True)).astype(np.float32)


def resize(images: Array, shape: tuple[int, int], mode: str) -> Array:
    """[B, H, W, C] float32 in 0..255 -> [B, *shape, C], also where nothing changes in size."""
    rounded = mode == "pillow"
    exact = jax.lax.Precision.HIGHEST

    def along(x: Array, how: str, size: int, to: int) -> Array:
        if size != to:
            x = jnp.einsum(how, weights(size, to, mode), x, precision=exact)
        return jnp.clip(jnp.floor(x + 0.5), 0, 255) if rounded else x

    wide = along(images, "ow,bhwc->bhoc", images.shape[2], shape[1])
    done = along(wide, "oh,bhwc->bowc", images.shape[1], shape[0])
    return jnp.clip(done, 0, 255)


def cover(images: Array, size: int, mode: str) -> Array:
    """The short side to `size`, then the central square: [B, size, size, C]."""
    height, width = images.shape[1:3]
    shape = tuple(int(size * side / min(height, width)) for side in (height, width))
    resized = resize(images, shape, mode)
    top, left = (round((side - size) / 2) for side in shape)
    return resized[:, top : top + size, left : left + size]
