"""Decodes and writes images, and crops them for training and evaluation.

All images are RGB, uint8 [H, W, 3]. Greyscale is repeated, CMYK converted, EXIF rotation applied,
16 bits scaled to 8, transparency composited over white; of an animation the first frame is used.

Only regular files of at most MAX_FILE_BYTES are read, and only images of at most MAX_PIXELS are
decoded: a file of a few kilobytes can describe an image that fills the memory. The limit is 11,585
x 11,585 pixels or as many in another shape, 0.4 GB in memory. Pillow itself warns from 89 million
pixels on and refuses 179 million.
"""

import io
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from l2l_jax.data import fast_jpeg, fast_resize
from l2l_jax.lib import bounded, files
from l2l_jax.lib.errors import BrokenImage, ConfigError
from l2l_jax.types import Source

FRAME_PIXELS = 2  # white pixels left and right of each image in a sheet
MAX_FILE_BYTES = 1 << 29
MAX_PIXELS = 1 << 27
RESIZERS = ("pillow", "simd")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # for EPS, Pillow would run Ghostscript
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")

# Pillow warns from 89 million pixels on; MAX_PIXELS is the limit here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode(data: bytes | Path, name: str) -> np.ndarray:
    """The image uint8 RGB [H, W, 3]. BrokenImage, with `name` and the reason, if that fails."""
    try:
        data = data if isinstance(data, bytes) else bounded.read(data, MAX_FILE_BYTES)
        with open_checked(data) as image:
            pixels = fast_jpeg.decode(image, data)
            return np.asarray(_to_rgb(image)) if pixels is None else pixels
    except bounded.Unreadable as error:
        reason = str(error).removeprefix(f"{name} ")
        raise BrokenImage(f"{name}: {reason}") from error
    except Exception as error:  # decoders raise many types on damaged files
        raise BrokenImage(f"{name}: {type(error).__name__}: {error}") from error


def open_checked(data: bytes) -> Image.Image:
    """The image in the content of a file, not decoded yet.

    Unreadable if it has more than MAX_PIXELS; Pillow's errors if it is none of FORMATS.
    """
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise bounded.Unreadable(
            f"it has {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are decoded"
        )
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()  # reads the whole file, so that a truncated one fails here
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bit, not scale it
        values = np.asarray(image, np.float64) / 257 + 0.5
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("32 bits per pixel have no defined white value")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes uint8 RGB [H, W, 3] as PNG, atomically."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"Not a uint8 RGB image: {image.dtype} {image.shape}.")
    with files.atomic_write(path) as file:
        Image.fromarray(image).save(file, "PNG")


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 [H, W, 3], resized (bicubic, antialiased) to `side` pixels on the shorter side.

    An image that is no larger stays as it is.
    """
    height, width = image.shape[:2]
    if min(height, width) <= side:
        return image
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def encode(image: np.ndarray, format: str, quality: int) -> bytes:
    """The content of a file of uint8 RGB [H, W, 3]. format: "JPEG" (no subsampling) or "BMP"."""
    content = io.BytesIO()
    args = dict(quality=quality, subsampling=0) if format == "JPEG" else {}
    Image.fromarray(image).save(content, format, **args)
    return content.getvalue()


def sheet(rows: list[np.ndarray], side: int = 96) -> np.ndarray:
    """One image of rows of uint8 [K, H, H, 3]; small images are enlarged to about `side` pixels."""
    scale, strips = max(1, round(side / rows[0].shape[1])), []
    for row in rows:
        large = row.repeat(scale, axis=1).repeat(scale, axis=2)
        framed = np.pad(
            large,
            ((0, 0), (FRAME_PIXELS, FRAME_PIXELS), (FRAME_PIXELS, FRAME_PIXELS), (0, 0)),
            constant_values=255,
        )
        strips.append(np.concatenate(list(framed), axis=1))
    return np.concatenate(strips, axis=0)


def resize_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The central square, resized (bicubic, antialiased) to [size, size, 3]."""
    if image.shape[:2] == (size, size):
        return image
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) / 2, (width - side) / 2
    return _resample(image, (left, top, left + side, top + side), size)


def at_size(source: Source, rows: Iterable[int], size: int) -> np.ndarray:
    """At least one image of a source, as resize_crop makes them: uint8 [n, size, size, 3]."""
    return np.stack([resize_crop(source.read(int(row)), size) for row in rows])


def random_crop(
    image: np.ndarray,
    size: int,
    rng: np.random.Generator,
    scale: tuple[float, float],
    resize: str = "pillow",
) -> np.ndarray:
    """A random crop, resized to [size, size, 3] (Szegedy et al. 2015).

    Its share of the area is in `scale`, its aspect ratio in [3/4, 4/3]. After ten draws that do not
    fit into the image, the central square is returned.
    """
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
            if resize == "simd":
                return fast_resize.bicubic(image[top : top + h, left : left + w], size)
            return _resample(image, (left, top, left + w, top + h), size)
    return resize_crop(image, size)


def _resample(image: np.ndarray, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    """The box (left, top, right, bottom) of the image, resized to [size, size, 3]."""
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(resized)


def augmentation(
    size: int, scale: tuple[float, ...], flip: bool, resize: str = "pillow"
) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Returns augment(image, rng) -> uint8 [size, size, 3]. ConfigError for impossible arguments.

    scale: (smallest, largest) share of the area of random crops, or () for the central crop. flip:
    mirror half of the images. resize: "pillow" or "simd" (data/fast_resize.py), for random crops.
    """
    if len(scale) not in (0, 2) or (scale and not 0 < scale[0] <= scale[1] <= 1):
        raise ConfigError(
            "data.crop is () or (smallest, largest) share of the area, both in (0, 1], "
            f"not {scale}."
        )
    if resize not in RESIZERS:
        raise ConfigError(f"data.resize is 'pillow' or 'simd', not {resize!r}.")
    if resize == "simd":
        fast_resize.check_installed()
    area = (scale[0], scale[1]) if scale else None

    def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        image = random_crop(image, size, rng, area, resize) if area else resize_crop(image, size)
        return _mirrored(image) if flip and rng.random() < 0.5 else np.ascontiguousarray(image)

    return augment


def _mirrored(image: np.ndarray) -> np.ndarray:
    """image[:, ::-1], copied channel by channel, which takes NumPy a quarter of the time."""
    mirrored = np.empty(image.shape, image.dtype)
    for channel in range(image.shape[-1]):
        mirrored[..., channel] = image[:, ::-1, channel]
    return mirrored
