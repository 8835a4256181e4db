"""Decodes JPEG in less time than Pillow, with the same pixels: the optional package simplejpeg.

Both decode by libjpeg-turbo; simplejpeg copies the pixels less often. A test compares the pixels of
both at the locked versions. What is not an ordinary colour photograph is left to Pillow: greyscale,
CMYK, images that EXIF rotates, and every file at which the decoder warns.
"""

import functools
import importlib
from typing import Any

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # a tag of EXIF; 1 is upright


@functools.cache
def package() -> Any | None:
    """The module simplejpeg; None if the extra [fast] is not installed."""
    try:
        return importlib.import_module("simplejpeg")
    except ImportError:
        return None


def decode(image: Image.Image, data: bytes) -> np.ndarray | None:
    """The pixels uint8 RGB [H, W, 3] of a file that Pillow has opened; None to let Pillow decode.

    data: the whole content of the file.
    """
    fast = package()
    if fast is None or image.format != "JPEG" or image.mode != "RGB":
        return None
    if image.getexif().get(ORIENTATION, 1) != 1:
        return None
    try:
        return fast.decode_jpeg(data, strict=True)
    except ValueError:  # a damaged file: Pillow says what is wrong, or reads it nevertheless
        return None
