"""Pillow's bicubic filter, several times as fast: the optional package cykooz.resizer.

Both compute in fixed point and round between the two passes, but in another order. On photographs
the results differ by 0.2 grey levels on average, and by more only in noise and at hard edges.
"""

import functools
import importlib.util
import threading
from typing import Any

import numpy as np

from l2l_jax.lib.errors import ConfigError

_thread = threading.local()  # a resizer has buffers, so every thread uses its own


def check_installed() -> None:
    """ConfigError if the package is not installed."""
    if importlib.util.find_spec("cykooz_resizer") is None:
        raise ConfigError(
            "data.resize='simd' needs the package cykooz.resizer: pip install 'l2l_jax[fast]', or "
            "set data.resize='pillow'."
        )


def bicubic(image: np.ndarray, size: int) -> np.ndarray:
    """The image uint8 [H, W, 3] resized to [size, size, 3], antialiased."""
    package, options = _package_and_options()
    if not hasattr(_thread, "resizer"):
        _thread.resizer = package.Resizer()
    height, width = image.shape[:2]
    pixel_type = package.PixelType.U8x3
    source = package.ImageData(width, height, pixel_type, image.tobytes())
    target = package.ImageData(size, size, pixel_type)
    _thread.resizer.resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(size, size, 3)


@functools.cache
def _package_and_options() -> tuple[Any, Any]:
    """The module, and options with the filter that Pillow calls bicubic."""
    import cykooz_resizer as package

    cubic = package.ResizeAlg.convolution(package.FilterType.catmull_rom)
    return package, package.ResizeOptions(resize_alg=cubic, use_alpha=False)
