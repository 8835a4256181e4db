"""Synthetic images, and small directories of JPEG files that have the layout of a data set."""

import io
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from l2l_jax.lib import files, sealed
from l2l_jax.lib.errors import not_saved
from l2l_jax.lib.rng import seed_of

log = logging.getLogger(__name__)

JPEG_VERSION = 1  # to be incremented when `jpeg` returns other files; they are then written anew
JPEG_VARIANTS = ("RGB", "L", "RGB", "CMYK", "RGB", "rotated")  # drawn with equal probability
EXIF_ROTATE_90 = 6  # value of the EXIF tag "orientation"
MIN_EVAL_IMAGES = 2  # of every class
DIGEST = ".sha256"  # the file with the digest of all others of a folder


def stripes(key: str, label: int, classes: int, height: int, width: int) -> np.ndarray:
    """Stripes, uint8 RGB [height, width, 3], a pure function of the arguments.

    The label determines colour and direction, the key phase and noise.
    """
    rng = np.random.default_rng(seed_of(0, key))
    angle = np.pi * label / classes
    y, x = np.mgrid[:height, :width] / max(height, width)
    along = np.cos(angle) * x + np.sin(angle) * y
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * (4 * along + rng.random()))
    colour = np.random.default_rng(label).uniform(0.3, 1.0, 3)
    image = wave[..., None] * colour + rng.normal(0, 0.03, (height, width, 3))
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def jpeg(key: str, label: int, classes: int) -> bytes:
    """A JPEG file of random size: RGB, greyscale, CMYK, or rotated by its EXIF orientation."""
    rng = np.random.default_rng(seed_of(JPEG_VERSION, key))
    variant = JPEG_VARIANTS[rng.integers(len(JPEG_VARIANTS))]
    height, width = (int(side) for side in rng.integers(65, 130, 2))
    picture = Image.fromarray(stripes(key, label, classes, height, width))
    exif = Image.Exif()
    if variant == "rotated":
        picture = picture.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = EXIF_ROTATE_90
    elif variant != "RGB":
        picture = picture.convert(variant)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90, exif=exif)
    return file.getvalue()


def eval_count(train: int) -> int:
    """The number of validation images of a class that has `train` training images."""
    return max(MIN_EVAL_IMAGES, train // 4)


def write_tree(name: str, images: Sequence[tuple[str, int]], texts: Mapping[str, str]) -> Path:
    """The folder with the images (path, label) and the text files {path: text}.

    It is in files.cache_dir() and written only if it is not there, or does not fit the digest that
    is stored in it. Several processes may call this at the same time.
    """
    content = [f"{path} {label}" for path, label in images]
    content += [f"{path}\n{text}" for path, text in texts.items()]
    digest = files.digest_of_lines([str(JPEG_VERSION), *content])[:12]
    target = files.cache_dir() / "synthetic" / f"{name}-{digest}"
    if target.is_dir():
        if _is_intact(target):
            return target
        sealed.log_damage(target)
        files.remove(target)
    log.info("writing %d synthetic images to %s", len(images), target)
    try:
        return _write_tree(target, images, texts)
    except OSError as error:
        raise not_saved(target, error) from error


def _write_tree(target: Path, images: Sequence[tuple[str, int]], texts: Mapping[str, str]) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    files.sweep(target.parent)
    temporary = Path(
        tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=files.TEMPORARY)
    )
    try:
        classes = 1 + max(label for _, label in images)
        for path, label in images:
            _write(temporary / path, jpeg(path, label, classes))
        for path, text in texts.items():
            _write(temporary / path, text.encode())
        _write(temporary / DIGEST, _digest(temporary).encode())
        os.chmod(temporary, 0o755)
        if not target.is_dir():  # another process may have written it
            os.rename(temporary, target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _digest(folder: Path) -> str:
    """SHA-256 of the paths and contents of all files of a folder except DIGEST."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != DIGEST)
    return files.digest_of_lines([f"{p.relative_to(folder)} {files.sha256(p)}" for p in paths])


def _is_intact(folder: Path) -> bool:
    try:
        return (folder / DIGEST).read_text() == _digest(folder)
    except (OSError, ValueError):
        return False


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
