"""Readers of latents and completions, on planted arrays."""

import numpy as np
import pytest

from l2l_jax.audits import distinguish
from l2l_jax.lib.detection import auc


def test_planted_separable_latents_are_found_and_shuffled_ones_are_not():
    rng = np.random.default_rng(0)
    negatives, noise = rng.normal(size=(60, 8)), rng.normal(size=(60, 8))
    positives = noise + 3 * np.eye(8)[2]
    assert auc(*distinguish.held_out_scores(positives, negatives, 5, 0)) > 0.95
    assert abs(auc(*distinguish.held_out_scores(noise, negatives, 5, 0)) - 0.5) < 0.15


def test_scores_are_of_images_that_were_not_fitted():
    """With more features than images, a reader of its own images tells any two groups apart."""
    rng = np.random.default_rng(1)
    groups = rng.normal(size=(2, 40, 400))
    assert auc(*distinguish.held_out_scores(*groups, 5, 0)) < 0.7


def test_the_bound_is_the_information_of_gaussians():
    """y = x + noise has 1/2 log(1 + signal / noise) nats in each dimension."""
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    colours = rng.normal(size=(4000, 4)) * [2.0, 1.0, 1.0, 0.5] @ rotation
    made = colours + 0.5 * rng.normal(size=colours.shape)
    real = distinguish.components(colours)
    read = distinguish.held_out_reading(made, real, 5, 0)
    true = 0.5 * np.sum(np.log1p(np.array([4.0, 1.0, 1.0, 0.25]) / 0.25))
    assert distinguish.information(np.stack([real, read], axis=1)) == pytest.approx(true, rel=0.03)


def test_correlated_colours_are_not_counted_twice():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(2000, 1))
    made = one + rng.normal(size=one.shape)
    found = []
    for copies in (1, 6):
        real = distinguish.components(np.repeat(one, copies, axis=1))
        read = distinguish.held_out_reading(made, real, 5, 0)
        found.append(distinguish.information(np.stack([real, read], axis=1)))
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    assert found[0] == pytest.approx(0.5 * np.log(2), abs=0.03)


def test_nothing_is_read_from_noise():
    rng = np.random.default_rng(0)
    real = distinguish.components(rng.normal(size=(100, 6)))
    read = distinguish.held_out_reading(rng.normal(size=(100, 6)), real, 5, 0)
    assert distinguish.information(np.stack([real, read], axis=1)) < 0.05
