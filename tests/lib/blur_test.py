"""Masks on the device are Pillow's, to the bit."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from l2l_jax.lib import blur


@pytest.mark.parametrize("radius", [0.5, 1.75, 3.2, 7.0, 11.3])
def test_it_is_pillows_gaussian(radius):
    mask = np.random.default_rng(0).random((2, 40, 52)) < 0.3
    for given, made in zip(mask, blur.gaussian_blur(mask, radius), strict=True):
        picture = Image.fromarray(given.astype(np.uint8) * 255)
        want = np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)))
        np.testing.assert_array_equal(np.round(np.asarray(made) * 255), want)


def test_growing():
    mask = np.zeros((1, 7, 7), bool)
    mask[0, 3, 1] = True
    grown = np.asarray(blur.grow_mask(mask, 2))[0]
    want = np.zeros((7, 7), bool)
    want[1:6, 0:4] = True
    np.testing.assert_array_equal(grown, want)
    assert blur.grow_mask(mask, 0) is mask
