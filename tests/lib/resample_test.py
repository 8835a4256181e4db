"""Resizing on the device equals Pillow, PyTorch and the recorded arrays of the reference code."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from l2l_jax.lib import resample
from l2l_jax.lib.errors import ConfigError
from tests.helpers import unpacked

SIZES = [((40, 56), (99, 75)), ((64, 64), (24, 31)), ((33, 40), (33, 80))]


def picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def resized(image, shape, mode):
    return np.asarray(resample.resize(jnp.asarray(image, jnp.float32)[None], shape, mode))[0]


@pytest.mark.parametrize(("mode", "every"), [("clean", 6), ("legacy", 9)])
def test_resizing_equals_the_recorded_arrays(mode, every):
    stored = np.load(unpacked("fid_is/resize.npz"))
    ours = resized(stored["small_uint8"], (299, 299), mode)[::every, ::every]
    np.testing.assert_allclose(ours, stored[mode], atol=1e-3)


@pytest.mark.parametrize(("shape", "to"), SIZES)
def test_clean_equals_pillow_on_floats(shape, to):
    image = picture(shape)
    for channel in range(3):
        plane = Image.fromarray(image[..., channel].astype(np.float32), mode="F")
        theirs = np.asarray(plane.resize(to[::-1], Image.Resampling.BICUBIC)).clip(0, 255)
        ours = resized(image, to, "clean")[..., channel]
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize(("shape", "to"), SIZES)
def test_pillow_equals_pillow_on_bytes(shape, to):
    image = picture(shape)
    theirs = np.asarray(Image.fromarray(image).resize(to[::-1], Image.Resampling.BICUBIC))
    ours = resized(image, to, "pillow")
    assert np.abs(ours - theirs).max() <= 1
    assert np.mean(ours != theirs) < 1e-3, (
        "values halfway between two integers may round differently"
    )


@pytest.mark.parametrize(("shape", "to"), SIZES)
def test_legacy_equals_pytorch_without_antialiasing(shape, to):
    torch = pytest.importorskip("torch")
    image = picture(shape)
    tensor = torch.tensor(image.transpose(2, 0, 1)[None].astype(np.float32))
    theirs = torch.nn.functional.interpolate(tensor, to, mode="bilinear", align_corners=False)
    ours = resized(image, to, "legacy").transpose(2, 0, 1)
    np.testing.assert_allclose(ours, theirs[0].numpy(), atol=2e-3)


def test_resize_and_crop_keeps_the_centre():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 255
    covered = resample.resize_and_crop(jnp.asarray(image, jnp.float32)[None], 10, "pillow")
    assert covered.shape == (1, 10, 10, 3)
    assert (covered == 255).all()


def test_channels_are_not_mixed():
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 255
    for mode in resample.MODES:
        np.testing.assert_allclose(resized(image, (20, 5), mode)[3, 3], [255, 0, 0], atol=1e-3)


def test_an_unknown_mode_gets_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'clean'"):
        resized(picture((8, 8)), (4, 4), "cleen")
