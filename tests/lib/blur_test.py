"""Blurred masks on the device equal those of Pillow to the bit."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from l2l_jax.lib import blur


@pytest.mark.slow
@pytest.mark.parametrize("radius", [0.5, 1.75, 3.2, 7.0, 11.3])
def test_blur_equals_pillow(radius):
    mask = np.random.default_rng(0).random((2, 40, 52)) < 0.3
    for original, blurred in zip(mask, blur.gaussian_blur(mask, radius), strict=True):
        picture = Image.fromarray(original.astype(np.uint8) * 255)
        expected = np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)))
        np.testing.assert_array_equal(np.round(np.asarray(blurred) * 255), expected)


def test_grow_mask():
    mask = np.zeros((1, 7, 7), bool)
    mask[0, 3, 1] = True
    grown = np.asarray(blur.grow_mask(mask, 2))[0]
    expected = np.zeros((7, 7), bool)
    expected[1:6, 0:4] = True
    np.testing.assert_array_equal(grown, expected)
    assert blur.grow_mask(mask, 0) is mask
