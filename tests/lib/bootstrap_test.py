"""Intervals cover what they should, on planted cases whose truth is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from l2l_jax.evaluators import fid, kid
from l2l_jax.evaluators.inception_score import inception_score
from l2l_jax.lib import bootstrap
from l2l_jax.lib.evaluation import interval_seed

TRIALS = 60
LEAST = 0.85  # coverage of 60 trials; at 95 % it is lower once in a thousand


def coverage(truth, estimate_of):
    """The share of the trials whose interval covers the truth."""
    bounds = [estimate_of(trial)[1] for trial in range(TRIALS)]
    return np.mean([low <= truth <= high for low, high in bounds])


@pytest.mark.slow
def test_the_interval_of_a_mean_covers_it_and_is_as_wide_as_theory_says():
    rng = np.random.default_rng(0)
    draws = rng.exponential(size=(TRIALS, 300))
    assert coverage(1.0, lambda trial: bootstrap.mean(draws[trial], trial)) >= LEAST
    value, (low, high) = bootstrap.mean(draws[0], 0)
    assert value == draws[0].mean()
    assert high - low == pytest.approx(2 * 1.96 * draws[0].std() / np.sqrt(300), rel=0.15)
    assert bootstrap.mean(draws[0], 0) == bootstrap.mean(draws[0], 0), "seeded"
    assert bootstrap.mean(draws[0], 0) != bootstrap.mean(draws[0], 1)


def test_a_single_image_has_an_interval_without_width():
    assert bootstrap.mean(np.array([0.5]), 0) == (0.5, (0.5, 0.5))


def gaussians(trial, shift, scale, count=200, width=8):
    """Pairs of features whose FID is known: width * (shift^2 + (scale - 1)^2)."""
    rng = np.random.default_rng(trial)
    x = rng.normal(size=(count, width))
    return x * scale + shift, 0.3 * x + np.sqrt(1 - 0.09) * rng.normal(size=(count, width))


def resampled(a, b, seed):
    return bootstrap.resampled(fid.frechet(a, b), fid.resampler(a, b), len(a), seed, 100)


def influenced(a, b, seed):
    return bootstrap.influenced(fid.frechet(a, b), fid.influences(a, b))


@pytest.mark.slow
@pytest.mark.parametrize("estimate", [resampled, influenced])
@pytest.mark.parametrize(("shift", "scale"), [(1.0, 1.5), (0.3, 1.2), (0.0, 1.0)])
def test_the_interval_of_the_fid_covers_the_fid_of_such_sets(estimate, shift, scale):
    """Also where both are one distribution, and the FID of 200 images is nothing but its bias."""
    draws = [gaussians(10**6 + trial, shift, scale) for trial in range(100)]
    truth = np.mean([fid.frechet(*draw) for draw in draws])
    found = coverage(truth, lambda trial: estimate(*gaussians(trial, shift, scale), trial))
    assert found >= LEAST
    if shift == 1.0:
        known = 8 * (shift**2 + (scale - 1) ** 2)
        assert truth == pytest.approx(known, rel=0.05), "here the bias is small"


def test_resamples_without_the_correction_would_miss_the_fid():
    """They are all too large: the percentiles of the resamples themselves do not cover it."""
    a, b = gaussians(0, 0.0, 1.0)
    figure_of, rng = fid.resampler(a, b), np.random.default_rng(0)
    again = [figure_of(rng.integers(0, 200, 200)) for _ in range(100)]
    assert np.quantile(again, 0.025) > fid.frechet(a, b)
    value, (low, high) = resampled(a, b, 0)
    assert low < value < high


def test_the_fid_of_rows_is_that_of_these_rows():
    a, b = gaussians(0, 0.5, 1.2)
    rows = np.random.default_rng(1).integers(0, 200, 200)
    assert fid.resampler(a, b)(rows) == pytest.approx(fid.frechet(a[rows], b[rows]), rel=1e-9)
    assert fid.resampler(a, b)(np.arange(200)) == pytest.approx(fid.frechet(a, b), rel=1e-9)


def test_influences_are_derivatives():
    """Against the difference that a second copy of one image makes."""
    a, b = gaussians(0, 0.5, 1.2, count=4000)
    found, figure_of, everything = fid.influences(a, b), fid.resampler(a, b), np.arange(4000)
    assert abs(found.mean()) < 1e-9
    whole = figure_of(everything)
    for row in (0, 7, 100):
        with_copy = figure_of(np.append(everything, row))
        assert 4001 * (with_copy - whole) == pytest.approx(found[row], rel=0.02, abs=0.02)


def test_many_features_take_the_derivative(monkeypatch):
    """A resample of 2,048 features would take seconds."""
    a, b = gaussians(0, 0.5, 1.2)
    assert fid._estimate(a, b, 0) != influenced(a, b, 0)
    monkeypatch.setattr(fid, "MAX_RESAMPLED_FEATURES", 4)
    assert fid._estimate(a, b, 0) == influenced(a, b, 0)


@pytest.mark.slow
def test_the_interval_of_the_kid_covers_that_of_the_distributions():
    """Shifted Gaussians; the truth is the mean over many pairs of sets, since it has no bias."""

    def value_of(a, b):
        return kid.distance(b, a, 1, 1000, np.random.default_rng(0))

    def estimate(trial):
        a, b = gaussians(trial, 0.5, 1.0, count=100)
        return bootstrap.left_out(value_of(a, b), lambda r: value_of(a[r], b[r]), 100, trial)

    draws = [gaussians(10**6 + trial, 0.5, 1.0, count=100) for trial in range(100)]
    truth = np.mean([value_of(*draw) for draw in draws])
    assert coverage(truth, estimate) >= LEAST


def test_the_interval_of_the_inception_score_is_around_it():
    logits = np.random.default_rng(0).normal(size=(400, 10)) * 3
    value = inception_score(logits, 10)[0]
    figure_of = lambda rows: inception_score(logits[rows], 10)[0]  # noqa: E731
    again, (low, high) = bootstrap.resampled(value, figure_of, 400, 0, 100)
    assert again == value
    assert low < value < high
    assert high - low < value


def test_all_variants_of_a_side_and_task_are_resampled_alike():
    evaluation = SimpleNamespace(seed=3)
    one, other = (
        interval_seed(evaluation, (v, "retain", "center")) for v in ("original", "unlearned")
    )
    assert one == other
    assert one != interval_seed(evaluation, ("original", "forget", "center"))
    assert one != interval_seed(SimpleNamespace(seed=4), ("original", "retain", "center"))


def test_influences_of_few_images_are_computed_in_the_space_that_they_span():
    """Features that are always zero change nothing, and with them the faster way is taken."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(8, 12)), rng.normal(size=(8, 12))
    wide = [np.concatenate([x, np.zeros((8, 40))], axis=1) for x in (a, b)]
    np.testing.assert_allclose(fid.influences(*wide), fid.influences(a, b), rtol=1e-6)
