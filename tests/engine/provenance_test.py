"""What weights were trained on is known through all files, and decides what is clean."""

import copy
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from configs import common
from l2l_jax.engine import config as config_table
from l2l_jax.engine import provenance, retrained
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.outcome import run_phases
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.train import train
from l2l_jax.lib import cli, files, trees
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.registry import find
from l2l_jax.weights import pretrained, safetensors
from l2l_jax.weights.__main__ import main as weights_cli
from l2l_jax.weights.safetensors import Weights
from l2l_jax.workdir.layout import Workdir
from tests.helpers import ROOT, assert_same_bits, params_of, small_config

KEYS = {"retain": ["a", "b", "c"], "forget": ["d"], "proxy": ["e", "f"]}
RECORDS = {name: {"keys": keys} for name, keys in KEYS.items()}
CHOSEN = {name: SimpleNamespace(digest=files.digest_of_lines(keys)) for name, keys in KEYS.items()}


def training_of(on="retain", loaded=None, spec="", **changes):
    config = small_config(phases=("pretrain",), **changes)
    config.pretrain.update(dict(on=on, steps=6, batch_size=8))
    config.weights = spec
    return provenance.training_of(resolve(config), RECORDS, {"pretrain": 6}, loaded)


def weights(groups, training, digest="abc"):
    """Weights of these groups, as a file holds them that was made with this training, or None."""
    about = {"digest": digest, "source": {"training": training} if training else {}}
    return Weights({group: {} for group in groups}, about)


def test_a_training_says_images_passes_and_steps():
    training = training_of()
    phase = training["phases"]["pretrain"]
    assert training["loaded"] is None
    assert (phase["method"], phase["steps"], phase["data"]) == ("pretrain", 6, "fake")
    assert phase["groups"] == ["decoder", "encoder"]
    digest = files.digest_of_lines(["a", "b", "c"])
    assert phase["sides"]["retain"] == dict(split="retain", digest=digest, images=3, passes=16.0)
    found = provenance.summary(training)
    assert (found["images"], found["passes"], found["steps"]) == (3, 16.0, 6)
    assert found["splits"] == "3 images, split retain of fake"
    assert found["tokenizer"] == ""
    assert retrained.problems(training, CHOSEN) == []
    assert retrained.problems(training_of("proxy"), CHOSEN) == [], "a proxy is nobody's to forget"


def test_training_on_all_images_is_not_clean():
    (reason,) = retrained.problems(training_of("all"), CHOSEN)
    assert "(phase pretrain: 6 images, split all of fake)" in reason


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (training_of(), []),
        (training_of("all"), ["its tokenizer from t.pth was trained on other images than the ret"]),
        (None, ["nobody recorded what its tokenizer from t.pth was trained on"]),
        (
            training_of(loaded=weights(["encoder", "decoder"], None), spec="first.pth"),
            ["nobody recorded what its weights from first.pth was trained on"],
        ),
    ],
    ids=["retain", "all", "unknown", "fine-tuned from what is unknown"],
)
def test_a_tokenizer_is_followed_through_all_files(inner, expected):
    """Only a tokenizer that never saw the forget images leaves a retrained MAGE clean."""
    training = training_of(loaded=weights(["tokenizer"], inner), spec="t.pth")
    found = retrained.problems(training, CHOSEN)
    assert len(found) == len(expected)
    assert all(reason.startswith(start) for reason, start in zip(found, expected, strict=True))
    about = provenance.summary(training)
    assert (about["images"], about["passes"]) == (3, 16.0), "those of the model, not its tokenizer"
    assert about["tokenizer"].startswith("t.pth: ")


def test_passes_add_up_over_the_files_that_a_model_started_from():
    first = training_of("all")
    training = training_of(loaded=weights(["encoder", "decoder"], first), spec="first")
    assert provenance.summary(training)["passes"] == 16.0 + 8.0
    unknown = training_of(loaded=weights(["encoder", "decoder"], None), spec="published")
    assert provenance.summary(unknown)["passes"] is None
    assert provenance.summary(unknown)["splits"].endswith("(and what is not known)")


BUNDLED = sorted(pretrained.BUNDLED.glob("*.safetensors"))


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_the_training_of_every_bundled_file_is_recorded(path):
    """In its metadata, or in training.json if it is older; and README.md there states it, too."""
    source = find("dataset", "fashion_mnist").load("train")
    kept = [
        key for key, label in zip(source.keys, source.labels, strict=True)
        if "retrained" not in path.stem or source.classes[label] not in common.FASHION_FORGET
    ]  # fmt: skip
    weights = safetensors.load(path)
    training = provenance.training_of_weights(weights)
    assert training is not None
    phase = training["phases"]["pretrain"]
    assert phase["steps"] == weights.about["source"]["steps"]["pretrain"]
    used = phase["sides"]["retain"]
    assert (used["digest"], used["images"]) == (files.digest_of_lines(kept), len(kept))
    size = round(used["passes"] * used["images"] / phase["steps"])
    readme = (pretrained.BUNDLED / "README.md").read_text()
    assert f"{phase['steps']:,} steps of {size} images" in readme
    assert weights.about["digest"][:16] in readme


def test_training_json_names_bundled_files_only():
    assert set(provenance.bundled()) <= {safetensors.load(path).about["digest"] for path in BUNDLED}


def test_a_tokenizer_that_saw_other_images_is_named():
    tokenizer = provenance._loaded(weights(["tokenizer"], None, digest=phase_digest()), "bundled:v")
    training = training_of(loaded=None) | {"loaded": tokenizer}
    (reason,) = retrained.problems(training, CHOSEN)
    assert reason.startswith("its tokenizer from bundled:v was trained on other images")


def phase_digest():
    return safetensors.load(pretrained.BUNDLED / "vqgan_fashion_mnist.safetensors").about["digest"]


@pytest.mark.parametrize(
    "words", ["fashion_mnist:", "fashion_mnist:mage", "fashion_mnist:vqgan",
              "fashion_mnist:diffusion", "autoencoder_cifar10:"]
)  # fmt: skip
def test_a_retrained_model_sees_each_image_as_often_as_the_original(words):
    """Ten equal classes, of which six are kept; the steps of both are those of the config."""
    name, form = words.split(":")
    config = lambda word: cli.load_config(f"{ROOT}/configs/{name}.py:{form},{word}").pretrain  # noqa: E731
    original, again = config("pretrain" if name == "fashion_mnist" else "l2l"), config("retrain")
    assert (original.on, again.on) == ("all", "retain")
    assert again.batch_size == original.batch_size
    assert again.steps / 0.6 == pytest.approx(original.steps)


def test_a_retrained_mage_does_not_start_from_the_bundled_tokenizer():
    config = cli.load_config(f"{ROOT}/configs/fashion_mnist.py:mage,retrain")
    assert not config.weights.startswith("bundled:")
    tokenizer = cli.load_config(f"{ROOT}/configs/fashion_mnist.py:vqgan,retrain")
    assert tokenizer.pretrain.on == "retain"
    assert tokenizer.split.to_dict() == config.split.to_dict(), "made from the same images"


def test_a_config_names_several_references():
    config = small_config()
    assert resolve(config).references == ()
    expected = ("runs/a,seed=0", "bundled:b", "~/c", "bundled:d")
    config.reference = os.pathsep.join(expected)
    assert resolve(config).references == expected
    plain = complete_config(config) | {"reference": (Path(expected[0]), *expected[1:])}
    assert resolve(plain).references == expected, "a tuple in Python"
    assert resolve(plain).config["reference"] == config.reference


def test_one_model_under_two_names_is_refused(monkeypatch):
    """It would make a floor of zero."""
    made = {name: Weights({"encoder": np.ones(at)}, {}) for name, at in zip("abc", (1, 2, 1))}  # noqa: B905
    monkeypatch.setattr(retrained, "load", lambda spec, model: made[spec])
    loaded = retrained.load_all(["a", "b"], None)
    assert loaded == (made["a"], made["b"])
    with pytest.raises(ConfigError, match="names one model twice: a and c hold the same"):
        retrained.load_all(["a", "b", "c"], None)
    both, one = retrained.combined_digest(loaded), retrained.combined_digest(loaded[:1])
    assert one == made["a"].digest != both


def test_what_to_do_with_a_reference_that_is_not_clean_is_a_choice():
    option = config_table.TABLE["unclean_reference"]
    assert option.default == "stop"
    config = copy.deepcopy(common.base())
    config.unclean_reference = "marked"
    with pytest.raises(ConfigError, match="'stop' or 'mark'"):
        config_table.check(complete_config(config))


def small(model, folder, on="retain", weights=""):
    """Claims a workdir for the smallest model of that name, ready to train; returns it."""
    config = small_config(phases=("pretrain",), weights=str(weights))
    config.model = dict(name=model, args=find("model", model).SMALLEST)
    config.pretrain.on = on
    return preflight(resolve(config), folder, StopSignal())


@pytest.mark.slow
def test_a_reference_over_a_tokenizer_that_saw_everything_is_refused(tmp_path, caplog):
    """From the tokenizer's run through its exported file to the reference of another run."""
    references: dict[str, str] = {}
    for on in ("retain", "all"):
        tokenizer = small("vqgan", tmp_path / f"vqgan {on}", on)
        run_phases(tokenizer, train)
        file = tmp_path / f"{on}.safetensors"
        weights_cli(["export", str(tokenizer.workdir.folder), str(file)])
        mage = small("mage", tmp_path / f"mage {on}", weights=file)
        references[on] = str(mage.workdir.folder)
    chosen = {
        name: SimpleNamespace(digest=record["digest"])
        for name, record in Workdir(Path(references["all"])).read_splits().items()
    }
    retrained.check(references["retain"], chosen)
    stated = rf"mage all is not clean: its tokenizer from {tmp_path}/all\.safetensors was trained "
    with pytest.raises(ConfigError, match=stated):
        retrained.check(references["all"], chosen)
    assert "not clean" not in caplog.text
    retrained.check(references["all"], chosen, "mark")
    assert "is not clean: its tokenizer from" in caplog.text
    stored = safetensors.load(tmp_path / "retain.safetensors").about["source"]["training"]
    assert stored["loaded"] is None
    assert stored["phases"]["pretrain"]["sides"]["retain"]["images"] == 32


@pytest.mark.slow
def test_a_reference_may_be_a_weights_file(tmp_path):
    """It carries what it was trained on, and a file that carries nothing is refused."""
    files_of, chosen = {}, {}
    for on in ("retain", "all"):
        run = small("mae", tmp_path / on, on)
        run_phases(run, train)
        files_of[on] = str(tmp_path / f"{on}.safetensors")
        weights_cli(["export", str(run.workdir.folder), files_of[on]])
        chosen = run.splits
    retrained.check(files_of["retain"], chosen)
    with pytest.raises(
        ConfigError, match=r"all\.safetensors is not clean: it was trained on other"
    ):
        retrained.check(files_of["all"], chosen)
    others = {name: SimpleNamespace(digest="0" * 64) for name in chosen}
    with pytest.raises(ConfigError, match="trained on other images than the retain split"):
        retrained.check(files_of["retain"], others)
    read = retrained.load(files_of["retain"], run.model)
    expected = params_of(tmp_path / "retain")
    assert_same_bits(trees.flatten(read.params), expected)
    assert read.about["source"]["training"]["phases"]["pretrain"]["sides"]["retain"]["images"] == 32
    unknown = safetensors.load(files_of["retain"])
    safetensors.save(tmp_path / "bare.safetensors", unknown.params, {"model": "mae", "args": {}})
    with pytest.raises(ConfigError, match="nobody recorded what it was trained on"):
        retrained.check(str(tmp_path / "bare.safetensors"), chosen)
    with pytest.raises(DataMissing, match="Bundled are: "):
        retrained.load("bundled:nothing", run.model)
