"""Figures under names of their own are shown as what they are, beside the figure they vary."""

import pytest

from l2l_jax.report import judges
from l2l_jax.report.metrics import METRICS, base, describe, goal, in_order


@pytest.mark.parametrize(
    ("metric", "of", "name"),
    [
        ("fid", "fid", "FID"),
        ("fid_places", "fid", "FID (places)"),
        ("is_released", "is", "Inception Score (released)"),
        ("is_std", "", ""),
        ("is_released_std", "", ""),
        ("lpips_std", "", ""),
        ("lpips", "lpips", "lpips"),
        ("inception_fid", "inception_fid", "inception fid"),
    ],
)
def test_a_variant_is_named_after_its_base(metric, of, name):
    assert base(metric) == of
    if of:
        assert describe(metric)[0] == name
        assert goal("forget", metric) == goal("forget", of)
        assert bool(goal("forget", metric)) == (of in METRICS)


def test_variants_stand_behind_their_base():
    found = ["lpips", "psnr", "is_released", "fid_places", "is", "is_std", "fid", "fid"]
    assert in_order(found) == ["fid", "fid_places", "is", "is_released", "psnr", "lpips"]


def test_the_paragraph_names_the_network_of_each_figure():
    results = {
        "networks": {
            "main": dict(name="inception", weights="a.pth", resize="clean, 299x299",
                             scale="clean", dtype="float32", digest="ab" * 32),
            "tiny": dict(name="clip", weights="random", digest="cd" * 32),
            "unused": dict(name="places", digest="ef" * 32),
        },
        "measured": {"fid": dict(network="main"), "clip": dict(network="tiny"), "psnr": {}},
        "counts": {"retain": 5000, "forget": 4999},
        "skipped": {},
    }  # fmt: skip
    text = judges.paragraph(results)
    weighed = "a.pth; resized clean, 299x299; scaled clean; float32; digest abababababab"
    assert f"FID: inception ({weighed})" in text
    assert "CLIP similarity: clip (random weights; digest cdcdcdcdcdcd)" in text
    assert "places" not in text
    assert "On 5,000 retain and 4,999 forget images" in text
    assert judges.untrained(results) == {"clip"}
