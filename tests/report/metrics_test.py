"""Figures are shown as results["figures"] describes them, and networks beside what they measure."""

from types import SimpleNamespace

import pytest

from l2l_jax.report import feature_networks
from l2l_jax.report.metrics import goal, measured, merged, notes, shown
from tests.report.runs import figures

FIGURES = figures("fid", "inception_score", "output_distance", "tsne")


def test_figures_are_shown_in_the_order_of_their_descriptions():
    assert list(FIGURES) == ["fid", "is", "is_std", "retrain_distance"]
    assert shown(FIGURES, ["retrain_distance", "is_std", "is", "fid"]) == [
        "fid", "is", "retrain_distance",
    ], "a spread is not shown alone"  # fmt: skip
    assert shown(FIGURES, ["lpips", "is"]) == ["is"], "a figure that nobody describes is not shown"


@pytest.mark.parametrize(
    ("name", "retain", "forget", "compared"),
    [
        ("fid", "down", "", "near"),
        ("is", "up", "", "near"),
        ("retrain_distance", "down", "down", "down"),
    ],
)
def test_the_good_direction_depends_on_the_side(name, retain, forget, compared):
    """Without a retrained model no direction is good on the forget side."""
    for reference in (True, False):
        assert goal("retain", FIGURES[name], reference) == retain
        assert goal("forget", FIGURES[name] | {"good": ""}, reference) == ""
    assert goal("forget", FIGURES[name], reference=False) == forget
    assert goal("forget", FIGURES[name], reference=True) == compared


def test_notes_explain_what_is_measured():
    assert notes(FIGURES, ["fid"]) == ""
    assert notes(FIGURES, ["fid", "retrain_distance"]).startswith("Distance to retrained is")
    twice = FIGURES | {"other": FIGURES["retrain_distance"]}
    assert notes(twice, twice) == notes(FIGURES, FIGURES), "each note once"


def test_the_first_run_decides_how_a_figure_is_shown():
    changed = {"lpips": FIGURES["is"], "fid": FIGURES["fid"] | {"title": "another"}}
    runs = [SimpleNamespace(results={"figures": each}) for each in (FIGURES, changed)]
    assert list(merged(runs)) == [*FIGURES, "lpips"]
    assert merged(runs)["fid"]["title"] == "FID"
    assert merged(runs[::-1])["fid"]["title"] == "another"


def test_the_paragraph_names_the_network_of_each_figure():
    cosine = figures("cosine")["cosine"] | {"name": "clip", "title": "cosine (clip)"}
    results = {
        "networks": {
            "main": dict(name="inception", weights="a.pth", resize="clean, 299x299",
                             scale="clean", dtype="float32", digest="ab" * 32),
            "tiny": dict(name="clip", weights="random", digest="cd" * 32),
            "unused": dict(name="places", digest="ef" * 32),
        },
        "measured": {"fid": dict(network="main"), "is": dict(network="main"),
                     "is_std": dict(network="main"), "clip": dict(network="tiny"), "psnr": {}},
        "figures": FIGURES | {"clip": cosine},
        "tasks": {"center": {"original": {"retain": {"fid": 1.0, "is": None}}}},
        "counts": {"retain": 5000, "forget": 4999},
        "skipped": {},
    }  # fmt: skip
    text = feature_networks.paragraph(results)
    weights = "a.pth; resized clean, 299x299; scaled clean; float32; digest abababababab"
    assert f"FID, Inception Score: inception ({weights})" in text
    assert "cosine (clip): clip (random weights; digest cdcdcdcdcdcd)" in text
    assert "places" not in text
    assert "On 5,000 retain and 4,999 forget images" in text
    assert feature_networks.untrained(results) == {"clip"}
    assert measured(results) == {"fid"}
