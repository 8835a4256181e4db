"""Planted copies of images to forget are counted."""

import dataclasses

import numpy as np
import pytest

from l2l_jax.audits import duplicates
from tests.audits import fakes


def test_planted_copies_are_counted():
    asked, others = fakes.pictures(10).images, fakes.pictures(12, seed=1).images.copy()
    others[2], others[7] = asked[4], asked[4]  # two copies of one image
    changed = asked[6].astype(int) + np.random.default_rng(0).integers(-2, 3, asked[6].shape)
    others[0] = np.clip(changed, 0, 255).astype(np.uint8)
    exact, near = duplicates.copies(asked, others, 4)
    assert np.flatnonzero(exact).tolist() == [4]
    assert np.flatnonzero(near).tolist() == [6]


def test_an_exact_copy_is_no_near_copy_but_may_have_one():
    asked = fakes.pictures(1).images
    brighter = np.clip(asked.astype(int) + 1, 0, 255).astype(np.uint8)
    exact, near = duplicates.copies(asked, np.concatenate([asked, brighter]), 4)
    assert exact.tolist() == near.tolist() == [True]
    assert duplicates.copies(asked, asked, 4)[1].tolist() == [False]


def test_flat_places_have_no_bits():
    flat = np.full((1, 16, 16, 3), 77, np.uint8)
    assert not duplicates.hashes(flat).any()
    ramp = np.broadcast_to(np.arange(16, dtype=np.uint8)[:, None] * 16, (1, 16, 16, 3))
    assert duplicates.hashes(ramp).all()


@pytest.mark.slow
def test_duplicates_finds_them_in_the_sets_of_a_run():
    kept = fakes.sets()["retain_train"]
    images = kept.images.copy()
    images[3] = fakes.sets()["forget_train"].images[0]
    planted = dataclasses.replace(kept, images=images)
    found = fakes.findings("duplicates", images={"retain_train": planted})
    assert found["exact", (("in", "retain_train"),)].value == 1
    assert found["exact", (("in", "forget_eval"),)].value == 0
