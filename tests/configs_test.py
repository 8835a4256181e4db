"""Every config resolves with every method and form word; none is run."""

import pytest

from configs import common
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.plan import resolve
from l2l_jax.lib import cli, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.registry import find
from tests.helpers import ROOT

PUBLISHED_MODELS = ("mae_imagenet", "mae_places365:coco", "mage_imagenet:proxy",
                    "vqgan_imagenet:unlearn", "diffusion_places365:proxy",
                    "diffusion_places365:random,ddpm")  # fmt: skip
SMALL_MODELS = ("fashion_mnist", "fashion_mnist:mage", "fashion_mnist:diffusion",
                "autoencoder_cifar10", "autoencoder_cifar10:bundled")  # fmt: skip


def config_of(spec, *words):
    file, _, form = spec.partition(":")
    form = ",".join(filter(None, (form, *words)))
    return complete_config(cli.load_config(f"{ROOT}/configs/{file}.py:{form}"))


@pytest.mark.parametrize("spec", [*PUBLISHED_MODELS, *SMALL_MODELS])
@pytest.mark.parametrize("method", common.UNLEARNING)
def test_every_config_has_every_method(spec, method):
    default, config = config_of(spec), config_of(spec, method)
    smoke = config_of(spec, method, "smoke")
    phases = config["phases"][len(default["phases"]) - 1 :]
    expected = {"epsilon": "l2l", "pcgrad": "l2l", "saliency": "l2l"}.get(method, method)
    assert config[phases[0]]["method"] == expected
    assert (config["data"], config["split"]) == (default["data"], default["split"])
    for phase in phases:
        assert config[phase]["on"] == default["unlearn"]["on"]
        assert config[phase]["steps"] == default["unlearn"]["steps"]
        optimizer = config[phase]["optimizer"]
        assert optimizer["final"] <= optimizer["lr"] <= default["unlearn"]["optimizer"]["lr"]
        assert smoke[phase]["steps"] == 12
    for each in (config, smoke):
        resolve(each)


@pytest.mark.parametrize("method", common.METHODS)
def test_the_folder_config_has_every_method(method):
    config = config_of("folder:small", method)
    config["data"]["args"]["root"] = "pets"
    phases = {config[phase]["method"] for phase in config["phases"][1:]}
    expected = {"epsilon": "l2l", "pcgrad": "l2l", "saliency": "l2l"}.get(method, method)
    assert expected in phases or (method, config["pretrain"]["on"]) == ("retrain", "retain")
    resolve(config)


@pytest.mark.slow
def test_the_diffusion_config_has_the_released_settings():
    config = config_of("diffusion_places365")
    phase, args = config["unlearn"], config["model"]["args"]
    assert (phase["steps"], phase["batch_size"]) == (15_600, 48)
    assert phase["optimizer"] | dict(lr=5e-5, final=5e-5, weight_decay=0.0) == phase["optimizer"]
    assert phase["tasks"] == ("freeform",)
    model = find("model", "diffusion").build(**args)
    assert model.sampling == "ddim, 50 of 2000 steps, linear 1e-06 to 0.01"
    args = config_of("diffusion_places365:ddpm")["model"]["args"]
    model = find("model", "diffusion").build(**args)
    assert model.sampling.startswith("ddpm, 2000 of 2000 steps")
    assert trees.count(model.template) == 62_641_347 + 82_432, "the decoder has its own embedding"


def test_form_words_that_exclude_each_other():
    for spec, words in (
        ("folder", ("retrain",)),
        ("mae_imagenet", ("max_loss", "siss")),
        ("mage_imagenet", ("pretrain", "max_loss")),
        ("vqgan_imagenet", ("max_loss",)),
        ("mae_places365", ("retrain",)),
    ):
        with pytest.raises(ConfigError, match=r"takes one of|go(es)? with|has the forms"):
            config_of(spec, *words)
