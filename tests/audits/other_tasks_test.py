"""The transforms of images, and the tasks that a run never uses."""

import numpy as np
import pytest

from l2l_jax.audits import other_tasks
from tests.audits import fakes


@pytest.mark.parametrize("name", other_tasks.TRANSFORMS)
def test_transforms(name):
    images = fakes.pictures(6).images
    before = images.copy()
    made = other_tasks.TRANSFORMS[name](images, 3)
    assert made.shape == images.shape
    assert made.dtype == np.uint8
    assert not np.array_equal(made, images)
    assert np.array_equal(images, before), "the images themselves stay as they are"
    assert np.array_equal(made, other_tasks.TRANSFORMS[name](images, 3))


def test_what_the_transforms_do():
    images = fakes.pictures(6).images
    twice = other_tasks.mirrored(other_tasks.mirrored(images, 0), 0)
    assert np.array_equal(twice, images)
    assert np.array_equal(other_tasks.inverted(other_tasks.inverted(images, 0), 0), images)
    shifted = other_tasks.shifted(images, 0)
    assert np.array_equal(shifted[:, :, 2:], images[:, :, :-2])  # an eighth of 16 pixels
    assert np.array_equal(shifted[:, :, :2], images[:, :, [0, 0]])
    grey = np.full((4, 32, 32, 3), 128, np.uint8)
    noise = other_tasks.noisy(grey, 1) / 255 - 128 / 255
    assert noise.std() == pytest.approx(0.1, abs=0.005)
    assert abs(noise.mean()) < 0.005


def test_other_tasks_are_those_that_the_run_never_uses():
    laboratory = fakes.laboratory()  # it trains on random and evaluates on center
    assert laboratory.other_tasks.keys().isdisjoint({"random", "center", "nothing"})
    assert laboratory.other_tasks["outpaint"] == ("outpaint", {"cells": 2})
    assert laboratory.other_tasks["side"] == ("side", {"cells": 1, "edge": "left", "finer": 2})
