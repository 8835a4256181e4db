"""The classifier: seeded, cached by all that it depends on, retrained if its file is damaged."""

import dataclasses
import logging

import jax
import numpy as np
import pytest

from l2l_jax.data import splits
from l2l_jax.datasets import fake
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.feature_networks import classifier
from l2l_jax.lib import cli, trees
from l2l_jax.lib.errors import BrokenImage
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.weights import feature_networks
from l2l_jax.weights.feature_networks import context
from tests.helpers import DAMAGE, ROOT, flip

ARGS = dict(size=16, epochs=3, batch_size=16)


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """(sources, splits) of made-up images, and an empty cache."""
    monkeypatch.setenv("L2L_CACHE", str(tmp_path / "cache"))
    args = dict(classes=3, train=24, eval=8, size=20)
    sources = {part: fake.load(part, **args) for part in ("train", "eval")}
    return sources, {
        name: splits.pick(name, part, sources[part], np.arange(len(sources[part].keys)))
        for name, part in (("retain", "train"), ("retain_eval", "eval"))
    }


@pytest.mark.slow
def test_it_learns_to_tell_classes_apart(parts):
    features = classifier.build(context(*parts, 20), **ARGS)
    assert features.about["accuracy"] > 0.9
    assert features.about["images"] == 72
    assert features.about["held_out"] == 24
    pictures = np.stack([parts[0]["eval"].read(i) for i in range(6)]) / np.float32(255)
    embedded, logits = jax.jit(features.apply)(features.params, pictures)
    assert embedded.shape == (6, classifier.FEATURES)
    assert logits.shape == (6, 3)


@pytest.mark.slow
def test_a_proxy_of_another_data_set_is_not_learned(parts):
    """Its labels are numbers of other classes."""
    sources, chosen = parts
    other = fake.load("train", classes=5, train=4, size=20)
    proxy = splits.pick("proxy", "proxy", other, np.arange(20))
    alone = classifier.build(context(sources, chosen, 20), **ARGS)
    beside = classifier.build(
        context(sources | {"proxy": other}, chosen | {"proxy": proxy}, 20), **ARGS
    )
    assert beside.about == alone.about


@pytest.mark.slow
def test_without_held_out_images_there_is_no_accuracy(parts):
    """Listed training images under the name of an eval split are no held-out images."""
    sources, chosen = parts
    listed = dataclasses.replace(chosen["retain"], name="retain_eval")
    about = classifier.build(context(sources, chosen | {"retain_eval": listed}, 20), **ARGS).about
    assert about["held_out"] == 0
    assert "accuracy" not in about


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_stops_nothing(parts, monkeypatch, caplog):
    def full(*_):
        raise PermissionError("no")

    kept = classifier.build(context(*parts, 20), **ARGS)
    monkeypatch.setenv("L2L_CACHE", "/elsewhere")
    monkeypatch.setattr(feature_networks.sealed, "write", full)
    again = classifier.build(context(*parts, 20), **ARGS)
    assert "not kept" in caplog.text
    assert again.about == kept.about
    assert trees.digest(again.params) == trees.digest(kept.params)


@pytest.mark.slow
def test_it_is_made_once(parts, caplog):
    with caplog.at_level(logging.INFO):
        first = classifier.build(context(*parts, 20), **ARGS)
        again = classifier.build(context(*parts, 20), **ARGS)
    assert caplog.text.count("training a classifier") == 1
    assert trees.digest(first.params) == trees.digest(again.params)


@pytest.mark.slow
def test_the_demo_trains_no_classifier(tmp_path, monkeypatch, caplog):
    """Its classifier is part of the package, under the key of today.

    If this fails, run launch/ship_classifier.py.
    """
    monkeypatch.setenv("L2L_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "_train", lambda *_: pytest.fail("it is not bundled"))
    config = cli.load_config(f"{ROOT}/configs/fashion_mnist.py")
    experiment = preflight(resolve(config), tmp_path / "run", StopSignal())
    about = classifier.build(context(experiment.sources, experiment.splits, 32)).about
    assert about["accuracy"] == pytest.approx(0.882, abs=0.005)
    assert about["digest"] in (feature_networks.BUNDLED / "README.md").read_text()
    assert not list((tmp_path / "cache").glob("classifier*"))


@pytest.mark.slow
def test_other_images_under_the_same_names_make_another(parts, tmp_path):
    sources, chosen = parts
    classifier.build(context(sources, chosen, 20), **ARGS)
    classifier.build(context(sources, chosen, 20), **ARGS | dict(seed=1))
    fewer = chosen | {"retain": splits.pick("retain", "train", sources["train"], np.arange(50))}
    classifier.build(context(sources, fewer, 20), **ARGS)
    train = sources["train"]
    darker = dataclasses.replace(train, read=lambda at: train.read(at) // 2)
    classifier.build(context(sources | {"train": darker}, chosen, 20), **ARGS)
    assert len(list((tmp_path / "cache").iterdir())) == 4


@pytest.mark.slow
def test_it_looks_at_the_images_of_the_splits_only(parts):
    """A broken file that the splits leave out must not come back through the classifier."""
    sources, chosen = parts

    def read(at):
        if at == 3:
            raise BrokenImage("3.png: broken")
        return sources["eval"].read(at)

    broken = sources | {"eval": dataclasses.replace(sources["eval"], read=read)}
    without = np.delete(np.arange(24), 3)
    kept = splits.pick("retain_eval", "eval", broken["eval"], without)
    features = classifier.build(context(broken, chosen | {"retain_eval": kept}, 20), **ARGS)
    assert features.about["held_out"] == 23


@pytest.mark.slow
def test_it_is_the_same_when_made_again(parts, tmp_path, caplog):
    first = classifier.build(context(*parts, 20), **ARGS)
    (path,) = (tmp_path / "cache").iterdir()
    flip(path)
    with caplog.at_level(logging.WARNING):
        again = classifier.build(context(*parts, 20), **ARGS)
    assert caplog.text.count("made again") == 1
    assert trees.digest(first.params) == trees.digest(again.params), "seeded: the same again"
    assert first.about == again.about


@pytest.mark.parametrize("damage", [*DAMAGE, "edited"])
def test_damaged_weights_are_made_again(damage, tmp_path, monkeypatch, caplog):
    """The accuracy is a figure of the report, so the metadata is under the digest, too."""
    monkeypatch.setenv("L2L_CACHE", str(tmp_path / "cache"))
    params, made = {"convs": {0: np.arange(4.0, dtype=np.float32)}}, []

    def make():
        made.append(1)
        return params, {"accuracy": 0.51}

    first = feature_networks.cached("x", make)
    (path,) = (tmp_path / "cache").iterdir()
    if damage == "edited":
        path.write_bytes(path.read_bytes().replace(b"0.51", b"0.91"))
        path.write_bytes(path.read_bytes().replace(b"0\0\0\0.\0\0\x005", b"0\0\0\0.\0\0\x009"))
    else:
        DAMAGE[damage](path)
    for _ in range(2):
        again = feature_networks.cached("x", make)
        assert again[1] == first[1] == {"accuracy": 0.51, "digest": trees.digest(params)}
        assert trees.digest(again[0]) == trees.digest(params)
    assert len(made) == (3 if damage == "a folder" else 2)
    assert ("made again" in caplog.text) == (damage != "deleted")
