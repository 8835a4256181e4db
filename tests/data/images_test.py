"""Images of all formats and modes are decoded to RGB; crops and flips."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from l2l_jax.data import images
from l2l_jax.lib.errors import BrokenImage, ConfigError

RED, BLUE = (250, 10, 20), (10, 20, 250)


def halves(width=40, height=30):
    """Left half red, right half blue."""
    array = np.zeros((height, width, 3), np.uint8)
    array[:, : width // 2], array[:, width // 2 :] = RED, BLUE
    return Image.fromarray(array)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def near(pixel, colour, by=12):
    return np.abs(np.asarray(pixel, int) - colour).max() <= by


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", dict(quality=95, subsampling=0)),
        ("JPEG", "RGB", dict(quality=95, subsampling=0, progressive=True)),
        ("JPEG", "CMYK", dict(quality=95)),
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("PNG", "RGBA", {}),
        ("WEBP", "RGB", dict(lossless=True)),
        ("WEBP", "RGBA", dict(lossless=True)),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {}),
    ],
)
def test_red_stays_red(kind, mode, options):
    image = halves().quantize(8) if mode == "P" else halves().convert(mode)
    array = images.decode(encoded(image, kind, **options), "x")
    assert array.dtype == np.uint8
    assert array.shape == (30, 40, 3)
    assert near(array[15, 5], RED)
    assert near(array[15, 35], BLUE)


def test_greyscale_is_repeated():
    array = images.decode(encoded(halves().convert("L"), "JPEG"), "x")
    assert array.shape == (30, 40, 3)
    assert (array[..., 0] == array[..., 1]).all()


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    array = images.decode(encoded(Image.fromarray(values), "PNG"), "x")
    assert array[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_32_bits_are_refused_not_turned_black(kind):
    image = Image.fromarray(np.arange(16, dtype=kind).reshape(4, 4))
    with pytest.raises(BrokenImage, match="32 bits per pixel have no defined white"):
        images.decode(encoded(image, "TIFF"), "x")


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned: rotate by 90 degrees
    array = images.decode(encoded(halves(), "JPEG", exif=exif, quality=95, subsampling=0), "x")
    assert array.shape == (40, 30, 3)
    assert near(array[5, 15], RED), "the left half is on top"
    assert near(array[35, 15], BLUE)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_composited_over_white(mode):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    options = {}
    if mode == "P":
        image, options = Image.new("P", (8, 8), 0), dict(transparency=0)
    array = images.decode(encoded(image.convert(mode), "PNG", **options), "x")
    assert (array == 255).all()


def test_a_truncated_file_is_named():
    data = encoded(halves(400, 300), "JPEG")
    with pytest.raises(BrokenImage, match=r"^cat\.jpg: "):
        images.decode(data[: len(data) // 2], "cat.jpg")
    with pytest.raises(BrokenImage, match="UnidentifiedImageError"):
        images.decode(b"not an image", "x")
    with pytest.raises(BrokenImage, match="FileNotFoundError"):
        images.decode(images.Path("/nowhere/x.png"), "x")


def test_a_written_image_is_read_back_unchanged(tmp_path):
    square = np.zeros((8, 8, 3), np.uint8)
    square[2:6, 2:6] = RED
    images.write_png(tmp_path / "deep" / "x.png", square)
    assert np.array_equal(images.decode(tmp_path / "deep" / "x.png", "x"), square)
    with pytest.raises(ValueError, match="Not a uint8 RGB image"):
        images.write_png(tmp_path / "y.png", square.astype(np.float32))


def test_central_crop():
    array = images.resize_crop(np.asarray(halves(60, 30)), 30)
    assert array.shape == (30, 30, 3)
    assert near(array[15, 2], RED)
    assert near(array[15, 27], BLUE)
    small = np.asarray(halves(32, 32))
    assert images.resize_crop(small, 32) is small, "an image of the right size is not resampled"
    assert images.resize_crop(np.asarray(halves(7, 5)), 16).shape == (16, 16, 3)


def test_random_crops_and_flips_depend_on_the_generator_alone():
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    augment = images.augmentation(24, (0.2, 1.0), flip=True)
    one, two, three = (augment(image, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one.shape == (24, 24, 3)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)
    mirrored = images.augmentation(32, (), flip=True)
    square = np.asarray(halves(32, 32))
    lefts = {tuple(mirrored(square, np.random.default_rng(s))[0, 0]) for s in range(20)}
    assert lefts == {RED, BLUE}, "about half of them are mirrored"


def photograph(width=500, height=375, seed=0):
    rng, pixels = np.random.default_rng(seed), np.full((height, width, 3), 128.0)
    for cells, amplitude in ((4, 60), (20, 30), (90, 15)):
        for channel in range(3):
            layer = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
            pixels[..., channel] += amplitude * np.asarray(layer.resize((width, height), 3)) / 2
    return np.clip(pixels + rng.normal(0, 8, (height, width, 1)), 0, 255).astype(np.uint8)


def test_simd_crops_equal_those_of_pillow_up_to_rounding():
    pytest.importorskip("cykooz_resizer")
    image, differences = photograph(), []
    pillow, simd = (images.augmentation(224, (0.2, 1.0), True, r) for r in images.RESIZERS)
    for seed in range(20):
        one, other = (f(image, np.random.default_rng(seed)) for f in (pillow, simd))
        assert one.shape == other.shape == (224, 224, 3)
        differences.append(np.abs(one.astype(int) - other).mean())
    assert max(differences) < 0.5, "grey levels of 255"
    again = simd(image, np.random.default_rng(0))
    assert np.array_equal(again, simd(image, np.random.default_rng(0)))


def jpeg(image, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_simplejpeg_gives_the_pixels_of_pillow(subsampling, progressive, monkeypatch):
    pytest.importorskip("simplejpeg", reason="the extra [fast] has it")
    image, options = photograph(61, 83), dict(subsampling=subsampling, progressive=progressive)
    data = jpeg(image, quality=90, **options)
    fast = images.decode(data, "x.jpg")
    assert images.fast_jpeg.decode(images.open_checked(data), data) is not None
    monkeypatch.setattr(images.fast_jpeg, "package", lambda: None)
    assert np.array_equal(fast, images.decode(data, "x.jpg"))


def test_only_whole_upright_colour_jpegs_are_left_to_simplejpeg():
    pytest.importorskip("simplejpeg", reason="the extra [fast] has it")
    image, rotated = photograph(20, 30), Image.Exif()
    rotated[images.fast_jpeg.ORIENTATION] = 6
    cases = {
        "grey": jpeg(image, "L"),
        "CMYK": jpeg(image, "CMYK"),
        "rotated": jpeg(image, exif=rotated),
        "cut off": jpeg(image)[:-200],
    }
    for name, data in cases.items():
        assert images.fast_jpeg.decode(images.open_checked(data), data) is None, name


def test_unknown_and_missing_resizers(monkeypatch):
    with pytest.raises(ConfigError, match=r"data\.resize is 'pillow' or 'simd', not 'cubic'"):
        images.augmentation(8, (), False, "cubic")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package cykooz\.resizer: pip install"):
        images.augmentation(8, (), False, "simd")


def test_mirroring():
    image = photograph(31, 20)
    flipped = images.augmentation(20, (1.0, 1.0), True)
    plain = images.augmentation(20, (1.0, 1.0), False)
    seeds = [np.random.default_rng(s) for s in range(8)]
    results = [flipped(image, rng) for rng in seeds]
    expected = [plain(image, np.random.default_rng(s)) for s in range(8)]
    kinds = {
        "same" if np.array_equal(a, b) else "mirrored"
        for a, b in zip(results, expected, strict=True)
    }
    assert kinds == {"same", "mirrored"}
    for a, b in zip(results, expected, strict=True):
        assert np.array_equal(a, b) or np.array_equal(a, b[:, ::-1])


def test_an_image_too_thin_for_any_crop_gets_the_central_one():
    thin = np.zeros((4, 400, 3), np.uint8)
    assert images.random_crop(thin, 8, np.random.default_rng(0), (0.9, 1.0)).shape == (8, 8, 3)


@pytest.mark.parametrize("scale", [(0.5,), (0.0, 1.0), (0.9, 0.2), (0.2, 1.5)])
def test_impossible_crops(scale):
    with pytest.raises(ConfigError, match=r"data\.crop"):
        images.augmentation(8, scale, flip=False)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_an_image_is_a_regular_file(tmp_path, kind):
    """A pipe that nobody writes to would block for ever, and a device never ends."""
    path = tmp_path / "x.png"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(BrokenImage, match=r"x\.png: is a .*, not a regular file"):
        images.decode(path, str(path))


def test_pixels_are_counted_before_they_are_decoded():
    """13,000 x 13,000 black pixels compress to 20 kB and would decode to 0.5 GB."""
    file = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(file, "PNG")
    with pytest.raises(BrokenImage, match=r"13,000 x 13,000 pixels; at most 134,217,728"):
        images.decode(file.getvalue(), "x.png")


def test_only_formats_of_images_are_opened():
    """Pillow would run Ghostscript for EPS, whatever the name of the file is."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    with pytest.raises(BrokenImage, match="cannot identify"):
        images.decode(eps, "x.png")
