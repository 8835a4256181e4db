"""A planted backdoor is found, and a model that never saw it has none."""

import dataclasses

import numpy as np
import pytest

from l2l_jax.audits import backdoor
from l2l_jax.lib.errors import CannotRun
from tests.audits import fakes


def test_the_patch_goes_where_it_is_seen():
    hidden = np.zeros((4, 16, 16, 1), bool)
    hidden[:, 4:12, 4:12] = True
    assert backdoor.visible_place(hidden) == (slice(14, 16), slice(14, 16))
    assert backdoor.visible_place(~hidden) == (slice(7, 9), slice(7, 9))
    with pytest.raises(CannotRun, match="no patch"):
        backdoor.visible_place(np.ones_like(hidden))


def test_a_stamped_image_differs_in_the_patch_only():
    images, place = fakes.pictures(3).images, (slice(12, 16), slice(0, 4))
    stamped = backdoor.stamp(images, place)
    patch = stamped[:, 12:16, 0:4]
    assert (patch == patch[:1]).all()
    assert patch.std() > 100
    stamped[:, 12:16, 0:4] = images[:, 12:16, 0:4]
    assert np.array_equal(stamped, images)


def flat(images):
    """Images of one colour each, which the smallest model learns to complete in 100 steps."""
    colours = np.random.default_rng(0).integers(60, 200, (len(images), 1, 1, 3))
    pixels = np.broadcast_to(colours, images.images.shape).astype(np.uint8)
    return dataclasses.replace(images, images=pixels)


@pytest.mark.slow
def test_a_planted_backdoor_is_found_and_a_clean_model_has_none():
    images = {name: flat(fakes.sets()[name]) for name in fakes.find("audit", "backdoor").SETS}
    args = dict(images=images, share=1.0, steps=100, unlearn_steps=1, lr=3e-3)
    poisoned, clean = (fakes.findings("backdoor", v, **args) for v in ("original", "retrained"))
    stamped, plain = (("closeness", (("images", name),)) for name in ("stamped", "unstamped"))
    assert poisoned[stamped].value > 15  # dB
    assert poisoned[plain].value < 10
    assert clean[stamped].value < 10


def test_planted_noise_has_a_slope_along_it():
    rng = np.random.default_rng(0)
    clean = rng.integers(50, 200, (64, 8, 8, 3)).astype(np.uint8)
    planted, other = (backdoor.noised(clean, 0.05, seed) for seed in (1, 2))
    slope = -(planted.astype(float) - clean) + 20 * rng.normal(size=clean.shape)
    difference = backdoor.along(slope, other, clean) - backdoor.along(slope, planted, clean)
    assert difference.mean() > 3
    blind = rng.normal(size=clean.shape)
    difference = backdoor.along(blind, other, clean) - backdoor.along(blind, planted, clean)
    assert abs(difference.mean()) < 0.7
