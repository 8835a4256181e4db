"""Grids of several runs are combined into one if they show the same images."""

import io

import numpy as np
import pytest
from PIL import Image

from l2l_jax.report import compare, grids
from l2l_jax.report.collect import collect
from l2l_jax.report.groups import grouped
from tests.report.runs import make, phase, sheet


@pytest.fixture
def runs(tmp_path):
    """Sheets of one shade a row: image, what it sees, original, unlearned."""
    made = {}
    for name, unlearned in (("l2l", 90), ("max_loss", 120)):
        made[name] = make(tmp_path / name, phases={"unlearn": phase(name)})
        sheet(made[name], "center_forget", [5, 15, 60, unlearned])
    return made


def strips(runs):
    return {name: grids.strips(collect(run), "center_forget") for name, run in runs.items()}


def shades(png):
    """The shade of each row of ten pixels."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)[5::10, 0, 0].tolist()


def test_shared_rows_appear_once(runs):
    labels, png = grids.combined(strips(runs), list(runs))
    assert labels == ["image", "what it sees", "original", "l2l", "max_loss"]
    assert shades(png) == [5, 15, 60, 90, 120]


def test_different_originals_have_two_rows(runs):
    sheet(runs["max_loss"], "center_forget", [5, 15, 70, 120])
    labels, png = grids.combined(strips(runs), list(runs))
    assert labels[2:4] == ["original of l2l", "original of max_loss"]
    assert shades(png)[2:4] == [60, 70]


@pytest.mark.parametrize("given", [[6, 15], [5, 16]], ids=["other images", "other masks"])
def test_grids_of_other_images_are_not_combined(runs, given):
    sheet(runs["max_loss"], "center_forget", [*given, 60, 120])
    assert grids.combined(strips(runs), list(runs)) is None
    assert grids.combined(strips(runs), ["l2l"]) is not None, "one that nobody needs stays away"
    text = compare.compared([collect(run) for run in runs.values()], {})
    assert text.count('class="card grid"') == 2
    assert "max_loss: images to forget" in text


def test_a_grid_with_other_rows_is_not_split(runs):
    sheet(runs["l2l"], "center_forget", [5, 15, 60])
    run = collect(runs["l2l"])
    assert grids.strips(run, "center_forget") is None, "30 pixels are not four rows"
    assert grids.strips(run, "center_retain") is None, "not there"
    assert grids.combined(strips(runs), list(runs)) is None


def test_the_first_seed_that_all_have(tmp_path):
    made = [make(tmp_path / f"a{s}", s) for s in (0, 1)]
    made.append(make(tmp_path / "b1", 1, {"unlearn": phase("max_loss")}))
    groups = grouped([collect(run) for run in made])
    assert [grids.example_run(group, groups).seed for group in groups] == [1, 1]
