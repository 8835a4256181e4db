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


METHOD_OF = dict(  # of recipes
    **dict.fromkeys(("epsilon", "pcgrad", "saliency", "conflict_free"), "l2l"),
    **dict.fromkeys(("images", "uno", "slug"), "max_loss"),
    certified="finetune",
)
# Methods whose first phase is one step of plain descent, and the solver of that phase.
ONE_STEP = dict(slug="slug", prune="remove_units", safe_denoiser="weighted")


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
    assert config[phases[0]]["method"] == METHOD_OF.get(method, method)
    assert config["data"] == default["data"]
    assert config["split"] == default["split"] or method == "images"
    for phase in phases:
        assert config[phase]["on"] == default["unlearn"]["on"]
        optimizer = config[phase]["optimizer"]
        assert smoke[phase]["steps"] == 12
        if method in ONE_STEP and phase == phases[0]:
            assert config[phase]["steps"] == 1
            assert (optimizer["name"], optimizer["lr"], optimizer["weight_decay"]) == ("sgd", 1, 0)
            assert config[phase]["solver"] == ONE_STEP[method]
            continue
        if method == "certified":  # its steps, and those of pretrain where the config has it
            continue
        assert config[phase]["steps"] == default["unlearn"]["steps"]
        assert optimizer["final"] <= optimizer["lr"] <= default["unlearn"]["optimizer"]["lr"]
    for each in (config, smoke):
        resolve(each)


@pytest.mark.parametrize("method", common.METHODS)
def test_the_folder_config_has_every_method(method):
    config = config_of("folder:small", method)
    config["data"]["args"]["root"] = "pets"
    phases = {config[phase]["method"] for phase in config["phases"][1:]}
    expected = METHOD_OF.get(method, method)
    assert expected in phases or (method, config["pretrain"]["on"]) == ("retrain", "retain")
    resolve(config)


@pytest.mark.parametrize("spec", [*PUBLISHED_MODELS, *SMALL_MODELS])
@pytest.mark.parametrize("method", ["", "max_loss", "ascent", "epsilon", "prune"])
def test_every_config_has_undo_after_every_method(spec, method):
    words = [method] * bool(method)
    before, config = config_of(spec, *words), config_of(spec, *words, "undo")
    *unlearning, perturb, distill = config["phases"]
    assert (tuple(unlearning), perturb, distill) == (before["phases"], "perturb", "distill")
    assert all(config[phase] == before[phase] for phase in unlearning)
    assert config["distill"]["teacher"] == unlearning[-1]
    assert config["distill"]["on"] == before[unlearning[-1]]["on"] != "all"
    assert config["distill"]["args"]["forget_images"] is False
    assert config["perturb"]["args"]["a"] == 0.5
    plan = resolve(config)
    assert (plan.phases["perturb"].steps, plan.phases["distill"].steps > 0) == (0, True)
    resolve(config_of(spec, *words, "undo", "smoke"))


@pytest.mark.parametrize("spec", [*PUBLISHED_MODELS, *SMALL_MODELS])
def test_resist_rebuilds_under_a_simulated_attack(spec):
    before, config = config_of(spec), config_of(spec, "resist")
    *unlearning, perturb, last = config["phases"]
    assert (tuple(unlearning), perturb, last) == (before["phases"], "perturb", "meta_unlearn")
    phase, undo = config[last], config_of(spec, "undo")["distill"]
    assert phase["args"]["times"] == 0.8
    assert phase["teacher"] == unlearning[-1], "its bound is a share of the unlearned model's loss"
    changed = dict(method="meta_unlearn", args=phase["args"])
    assert phase == undo | changed
    resolve(config)


def test_undo_costs_a_small_share_of_pretraining():
    """With the teacher's pass, an image costs 4/3 of what it costs in pretraining."""
    for spec, pretrained in (("fashion_mnist:undo", 12_000 * 128),
                             ("fashion_mnist:diffusion,undo", 5_000 * 32),
                             ("autoencoder_cifar10:undo", 20_000 * 128)):  # fmt: skip
        distill = config_of(spec)["distill"]
        seen = distill["steps"] * distill["batch_size"]
        assert 4 / 3 * seen == pytest.approx(0.035 * pretrained, rel=0.02)


@pytest.mark.parametrize("spec", ["fashion_mnist", "autoencoder_cifar10:bundled"])
def test_images_are_a_list_in_place_of_classes(spec):
    config, default = config_of(spec, "images"), config_of(spec)
    phase, before = config["unlearn"], default["unlearn"]
    assert config["split"]["forget"]["classes"] == ()
    assert config["split"]["calibration"] > 0
    assert (phase["stop"], phase["args"]) == ("unseen", dict(times=0.0, retain="match"))
    rate = pytest.approx(before["optimizer"]["lr"] / 3)
    assert phase["optimizer"]["lr"] == phase["optimizer"]["final"] == rate


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
        ("fashion_mnist", ("retrain", "undo")),
        ("fashion_mnist", ("slug", "undo")),
        ("autoencoder_cifar10", ("retrain", "undo")),
        ("mage_imagenet", ("pretrain", "undo")),
        ("fashion_mnist", ("undo", "resist")),
    ):
        with pytest.raises(ConfigError, match=r"takes one of|go(es)? with|has the forms"):
            config_of(spec, *words)
