"""The recipe follows from what is asked, and can be overridden."""

import pytest

from l2l_jax import flags, requests
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.plan import resolve
from l2l_jax.lib import cli
from l2l_jax.lib.errors import ConfigError
from tests.helpers import ROOT

LIST = "--config.split.forget.files=delete.txt"
SPECS = ("folder:small", "fashion_mnist", "fashion_mnist:mage", "autoencoder_cifar10",
         "mae_imagenet", "mae_places365", "mage_imagenet", "vqgan_imagenet:unlearn",
         "diffusion_places365")  # fmt: skip


def chosen(spec, *words):
    """(spec, config) that a command with these words runs."""
    file, _, form = spec.partition(":")
    spec = f"{ROOT}/configs/{file}.py:{form}"
    spec, config = requests.with_recipe(spec, cli.load_config(spec), ["main", *words])
    return spec.rpartition(":")[2], flags.with_names(config, ["main", *words])


@pytest.mark.parametrize("spec", SPECS)
def test_a_list_gets_the_recipe_for_single_images(spec):
    form, config = chosen(spec, LIST)
    assert form.split(",")[-1] == "images"
    assert config["recipe"]["name"] == "images"
    assert "lists single images" in config["recipe"]["reason"]
    assert config["unlearn"]["stop"] == "unseen"
    assert (config["split"]["forget"]["classes"], config["split"]["forget"]["random"]) == ((), 0)
    config["split"]["forget"]["files"] = "delete.txt"  # as the flag does
    resolve(config)


@pytest.mark.parametrize("spec", SPECS)
def test_classes_get_the_recipe_of_the_config(spec):
    form, config = chosen(spec)
    assert "images" not in form
    assert config["recipe"]["name"] == "l2l"
    assert "whole classes" in config["recipe"]["reason"]
    before = complete_config(cli.load_config(f"{ROOT}/configs/{spec.partition(':')[0]}.py:{form}"))
    assert config | {"recipe": before["recipe"]} == before


def test_a_form_word_or_a_method_overrides_the_choice():
    form, config = chosen("fashion_mnist:siss", LIST)
    assert (form, config["unlearn"]["method"]) == ("siss", "siss")
    assert config["recipe"] == dict(name="siss", reason="the form word siss names it")
    assert config["split"]["forget"]["classes"] == (), "those of the config are dropped"
    form, config = chosen("fashion_mnist", LIST, "--config.unlearn.method=finetune")
    assert (form, config["unlearn"]["method"]) == ("", "finetune")
    assert "another method by --config.unlearn.method" in config["recipe"]["reason"]
    form, config = chosen("fashion_mnist:pretrain", LIST)
    assert (form, config["recipe"]["name"]) == ("pretrain", "")


def test_a_config_without_the_recipe_says_so(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import common\n"
        "def get_config(form=''):\n"
        "    common.parse_form(form, 'mine.py', ('l2l',))\n"
        "    config = common.base()\n"
        "    config.recipe.name = 'l2l'\n"
        "    return config\n"
    )
    config = cli.load_config(str(path))
    with pytest.raises(ConfigError, match="has no recipe for these"):
        requests.with_recipe(str(path), config, ["main", LIST])
