"""Masks and pictures for people, and the attack that can be watched."""

import sys

import numpy as np
import pytest

import l2l_jax
from l2l_jax import explore
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.plan import resolve
from l2l_jax.explore import painting
from l2l_jax.explore.html import psnr
from l2l_jax.lib import config_dicts, files
from l2l_jax.lib.errors import ConfigError
from tests.helpers import finished_run, small_config

CENTER = dict(task="center", args=dict(cells=2))


@pytest.fixture(scope="module")
def models():
    return l2l_jax.load(finished_run())


def mask(size=16):
    hidden = np.zeros((size, size), bool)
    hidden[2:5, 1:9] = True
    return hidden


def test_a_mask_survives_as_text():
    assert np.array_equal(painting.mask_of(painting.text_of(mask()), 16), mask())
    assert not painting.mask_of("", 16).any()
    for wrong in ("1", "1" * 255 + "x", "1" * 255 + "\N{SUPERSCRIPT ONE}"):
        with pytest.raises(ValueError, match="256 digits, 0 or 1"):
            painting.mask_of(wrong, 16)


def test_a_painter_gives_what_was_painted():
    pytest.importorskip("anywidget")
    image, seen = np.zeros((16, 16, 3), np.uint8), []
    painter = explore.Painter(image, mask())
    assert np.array_equal(painter.hidden, mask())
    painter.watch(lambda hidden: seen.append(hidden.sum()))
    painter.hidden = ~mask()
    assert seen == [256 - 24]
    with pytest.raises(ValueError, match="16x16 pixels"):
        painter.show(np.zeros((8, 8, 3), np.uint8))
    assert "makePainter" in painter._repr_mimebundle_()[0]["text/plain"] or painter.widget._esm


def test_without_anywidget_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    painting._widget.cache_clear()
    with pytest.raises(ConfigError, match=r"anywidget, of the extra \[notebook\]"):
        explore.Painter(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.slow
def test_completions_stand_beside_each_other(models):
    images, _ = models.images("forget_eval", 2)
    text = explore.completions({"<b>": models.original} | dict(models), images[0], mask())
    assert text.count("<figure") == 5, "the image, three models, the difference"
    assert "&lt;b&gt;" in text
    made = models.unlearned.complete(images[0], mask())
    assert f"PSNR {psnr(images[0], made, mask()):.1f} dB" in text
    assert "paint on the picture" in explore.completions(
        models, images[0], np.zeros((16, 16), bool)
    )
    assert explore.grid({"a": images}, ["x", "y"]).count('alt="y: a"') == 1


def test_images_of_a_run_are_those_of_its_splits(models):
    images, titles = models.images("forget_eval", 6)
    assert images.shape == (6, 16, 16, 3)
    assert (
        sorted(set(titles))
        == files.read_json(finished_run() / "results.json")["classes"]["forget_eval"]
    )
    assert titles.count(titles[0]) == 3, "as many of each class"
    with pytest.raises(ConfigError, match=r"split of .*'forgot'"):
        models.images("forgot")
    assert models.results["task"] == "center"


def test_images_of_a_list_are_withheld(models, tmp_path, monkeypatch):
    config = dict(models.config)
    config["split"] = dict(config["split"], forget=dict(config["split"]["forget"], files="a.txt"))
    monkeypatch.setattr(models, "config", config)
    with pytest.raises(ConfigError, match="nothing that somebody asked to delete"):
        models.images("forget")
    assert len(models.images("retain_eval", 3)[0]) == 3
    monkeypatch.setattr(models, "config", config | {"report": {"show_forgotten": True}})
    assert len(models.images("forget", 3)[0]) == 3


def test_hidden_pixels_are_those_that_are_completed(models):
    hidden = models.original.hidden_pixels(CENTER, 2)
    assert hidden.shape == (2, 16, 16)
    image = np.full((2, 16, 16, 3), 7, np.uint8)
    changed = (models.original.complete(image, CENTER) != 7).any(-1)
    assert changed.any()
    assert not (changed & ~hidden).any()


@pytest.mark.slow
def test_relearning_brings_images_back_and_changes_no_model(models):
    images, _ = models.images("forget", 8)
    before = models.unlearned.digest
    points = list(
        explore.relearn(models.unlearned, images, images, CENTER, steps=(0, 5, 40), lr=3e-3)
    )
    assert [step for step, _ in points] == [0, 5, 40]
    assert points[-1][1] > points[0][1] + 1
    assert l2l_jax.load(finished_run()).unlearned.digest == before
    hidden = models.unlearned.hidden_pixels(CENTER, 8)
    start = models.unlearned.complete(images, hidden)
    expected = np.mean([psnr(*row) for row in zip(images, start, hidden, strict=True)])
    assert points[0][1] == pytest.approx(float(expected), abs=1e-6)


def test_the_config_key_exists_and_is_off():
    assert small_config().report.show_forgotten is False


def test_a_run_of_an_earlier_version_has_no_section_report():
    config = complete_config(small_config())
    del config["report"]
    resolve(config)
    assert not config_dicts.withholds_forgotten(config)
    config["split"]["forget"] |= {"files": "delete.txt"}
    assert config_dicts.withholds_forgotten(config)
