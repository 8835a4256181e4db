"""Made-up images, and small trees of JPEG files made of them: a real data set in miniature."""

import io
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from l2l_jax.lib import files
from l2l_jax.lib.rng import seed_of

log = logging.getLogger(__name__)

LOOKS = 1  # number of the look of the files; another one, and they are written anew
KINDS = ("RGB", "L", "RGB", "CMYK", "RGB", "rotated")
TURNED = 6  # the EXIF orientation of a camera held upright


def stripes(key: str, label: int, classes: int, height: int, width: int) -> np.ndarray:
    """uint8 RGB. The class gives colour and direction, the key phase and noise."""
    rng = np.random.default_rng(seed_of(0, key))
    angle = np.pi * label / classes
    y, x = np.mgrid[:height, :width] / max(height, width)
    along = np.cos(angle) * x + np.sin(angle) * y
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * (4 * along + rng.random()))
    colour = np.random.default_rng(label).uniform(0.3, 1.0, 3)
    image = wave[..., None] * colour + rng.normal(0, 0.03, (height, width, 3))
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def jpeg(key: str, label: int, classes: int) -> bytes:
    """A JPEG file of odd size: RGB, greyscale, CMYK, or turned by its EXIF data."""
    rng = np.random.default_rng(seed_of(LOOKS, key))
    kind = KINDS[rng.integers(len(KINDS))]
    height, width = (int(side) for side in rng.integers(65, 130, 2))
    picture = Image.fromarray(stripes(key, label, classes, height, width))
    exif = Image.Exif()
    if kind == "rotated":
        picture = picture.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = TURNED
    elif kind != "RGB":
        picture = picture.convert(kind)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90, exif=exif)
    return file.getvalue()


def held_out(train: int) -> int:
    """The images of a class to evaluate on, where there are `train` to train on."""
    return max(2, train // 4)


def tree(name: str, images: Sequence[tuple[str, int]], texts: Mapping[str, str]) -> Path:
    """The folder with the images (path, label) and the text files {path: text}, written once."""
    about = [f"{path} {label}" for path, label in images]
    about += [f"{path}\n{text}" for path, text in texts.items()]
    digest = files.digest_of_lines([str(LOOKS), *about])[:12]
    target = files.cache_dir() / "synthetic" / f"{name}-{digest}"
    if target.is_dir():
        return target
    log.info("writing %d made-up images to %s", len(images), target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        classes = 1 + max(label for _, label in images)
        for path, label in images:
            _put(temporary / path, jpeg(path, label, classes))
        for path, text in texts.items():
            _put(temporary / path, text.encode())
        os.chmod(temporary, 0o755)
        if not target.is_dir():  # else another process was faster
            os.rename(temporary, target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
