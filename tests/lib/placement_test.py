"""Figures between a retrained model and the original: known places, gaps, floors, intervals."""

import numpy as np
import pytest

from l2l_jax.lib import placement
from l2l_jax.types import Finding

RNG = np.random.default_rng(0)


def finding(value, spread=0.05, seed=0):
    """A finding whose resamples lie around its value; equal seeds make the same draws."""
    noise = np.random.default_rng(seed).normal(0, spread, 200)
    return Finding("psnr", value, value + noise, {"steps": 10})


def models(unlearned, original=16.0, retrained=(12.0, 12.2), **settings):
    found = {"original": finding(original, **settings), "unlearned": finding(unlearned, **settings)}
    names = ("retrained", "retrained_2", "retrained_3")
    return found | {
        name: finding(value, **settings) for name, value in zip(names, retrained, strict=False)
    }


@pytest.mark.parametrize(("unlearned", "place"), [(16.0, 1.0), (12.1, 0.0), (14.05, 0.5), (8, -1)])
def test_a_place_is_linear_between_the_retrained_model_and_the_original(unlearned, place):
    row = placement.compare(models(unlearned), seed=0)
    assert row["place"]["value"] == pytest.approx(place, abs=0.06)
    low, high = row["place"]["interval"]
    assert low <= row["place"]["value"] <= high
    assert row["gap"] == pytest.approx(3.9)
    assert row["floor"] == pytest.approx(0.2)
    assert row["at"] == {"steps": 10}
    assert row["why"] == ""


def test_the_original_is_at_one_and_each_retrained_model_within_its_interval_of_zero():
    as_original = placement.compare(models(16.0), seed=0)["place"]
    assert as_original["value"] == 1.0
    assert as_original["interval"] == pytest.approx([1.0, 1.0])
    for value in (12.0, 12.2):
        low, high = placement.compare(models(value), seed=0)["place"]["interval"]
        assert low <= 0 <= high


def test_a_gap_that_two_seeds_also_have_places_nothing():
    row = placement.compare(models(13.0, original=13.0, retrained=(12.0, 13.5)), seed=0)
    assert row["place"] is None
    assert row["why"] == placement.NO_GAP
    assert row["floor"] == pytest.approx(1.5)


def test_a_gap_within_the_noise_of_the_images_places_nothing():
    found = models(12.0, original=12.5, retrained=(12.0,))
    noisy = np.random.default_rng(1).normal(12.5, 2, 200)
    found["original"] = Finding("psnr", 12.5, noisy, {"steps": 10})
    row = placement.compare(found, seed=0)
    assert (row["place"], row["why"]) == (None, placement.NO_GAP)
    assert row["floor"] is None, "one retrained model has no floor"


def test_without_a_retrained_model_the_figures_stand_alone():
    row = placement.compare(models(13.0, retrained=()), seed=0)
    assert (row["place"], row["why"]) == (None, placement.NO_REFERENCE)
    assert row["values"]["unlearned"]["value"] == 13.0
    low, high = row["values"]["unlearned"]["interval"]
    assert low < 13.0 < high


def test_figures_without_resamples_have_no_interval():
    found = {name: Finding("psnr", x.value) for name, x in models(14.1).items()}
    row = placement.compare(found, seed=0)
    assert row["place"] == {"value": pytest.approx(0.5128, abs=1e-3), "interval": None}
    assert row["values"]["original"]["interval"] is None


def test_compared_finds_rows_by_figure_and_place():
    rows = [placement.compare(models(14.0), seed=0)]
    compared = placement.Compared(rows)
    assert compared.value("unlearned", "psnr", steps=10) == 14.0
    assert compared.reference("psnr", steps=10) == pytest.approx(12.1)
    assert (
        placement.Compared([placement.compare(models(1, retrained=()), 0)]).reference(
            "psnr", steps=10
        )
        is None
    )
    with pytest.raises(KeyError):
        compared.value("unlearned", "psnr", steps=11)
