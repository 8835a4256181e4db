"""A proxy from another data set trains in place of retain, is written down, and never judged."""

import dataclasses

import numpy as np
import pytest

from configs import mae_imagenet, mae_places365
from l2l_jax.data import splits
from l2l_jax.datasets import imagenet, places365
from l2l_jax.engine.plan import complete_config
from l2l_jax.engine.training_sets import passes, trained_on, training_splits
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.types import Source
from tests.helpers import assert_same_bits, params_of, ready, small_config, trained


def proxy_config(**data):
    config = small_config()
    args = dict(class_names=("sea", "moon", "class0"), train=10, size=24)
    config.data.proxy = dict(name="fake", args=args)
    config.data.update(data)
    config.split.forget.images = 20
    config.split.proxy.update(dict(classes=("sea", "class0"), images=12))
    config.pretrain.on = config.unlearn.on = "proxy"
    config.phases = ("pretrain",)
    return config


def with_unlearn():
    config = proxy_config()
    config.phases = ("pretrain", "unlearn")
    return config


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The workdir of such a run, without the evaluation."""
    folder = tmp_path_factory.mktemp("proxy") / "run"
    trained(proxy_config(), folder)
    return folder


def test_it_is_trained_on_and_written_down(plain):
    kept = {p.stem: files.read_json(p) for p in (plain / "splits").glob("*.json")}
    assert kept["proxy"]["part"] == "proxy"
    assert kept["proxy"]["count"] == 12
    assert kept["proxy"]["classes"] == ["sea", "class0"]
    assert kept["forget"]["count"] == 20
    assert "proxy_eval" not in kept
    experiment = ready(plain)
    split = training_splits(experiment, "pretrain")["retain"]
    assert split.keys == tuple(kept["proxy"]["keys"])
    image = experiment.sources[split.part].read(split.indices[0])
    assert image.shape == (24, 24, 3), "of the other data set, whose images are larger"
    assert trained_on(experiment.plan, experiment.splits) == {"proxy"}
    experiment = dataclasses.replace(experiment, plan=resolve(with_unlearn()))
    told = passes(experiment, "unlearn")
    digest = kept["proxy"]["digest"]
    assert told["retain"] == dict(split="proxy", digest=digest, images=12, passes=6 * 8 / 12)
    assert told["forget"]["passes"] == 6 * 8 / 20
    assert passes(experiment, "unlearn", steps=1)["forget"]["passes"] == 8 / 20
    pretrain = dataclasses.replace(experiment.plan.phases["pretrain"], on="all")
    phases = {"pretrain": pretrain}
    plan = dataclasses.replace(experiment.plan, phases=phases)
    experiment = dataclasses.replace(experiment, plan=plan)
    everything = training_splits(experiment, "pretrain")["retain"]
    assert everything.part == "train"
    assert len(everything.keys) == 20 + 32, "all is all of the data set itself"
    assert trained_on(plan, experiment.splits) == {"forget", "retain"}


@pytest.mark.slow
def test_a_cache_changes_no_bit(plain, tmp_path):
    trained(proxy_config(cache="memory"), tmp_path / "cached")
    assert_same_bits(params_of(tmp_path / "cached"), params_of(plain))
    for path in (plain / "splits").glob("*"):
        assert (tmp_path / "cached" / "splits" / path.name).read_bytes() == path.read_bytes()


def test_all_that_is_missing_is_said_at_once(tmp_path):
    config = proxy_config()
    config.data.name, config.data.args = "imagenet", dict(root=str(tmp_path / "no"))
    config.data.proxy = dict(name="folder", args=dict(root=str(tmp_path / "nothing")))
    with pytest.raises(DataMissing) as error:
        trained(config, tmp_path / "run")
    assert "ImageNet" in str(error.value)
    assert "nothing" in str(error.value)


def test_bad_words_are_found_before_anything_is_read(tmp_path):
    config = proxy_config()
    config.data.proxy.args = dict(clases=3)
    with pytest.raises(ConfigError, match=r"does not take 'clases'.*'classes'"):
        trained(config, tmp_path / "run")
    config = proxy_config()
    config.data.proxy.name = "fakes"
    with pytest.raises(ConfigError, match=r"No dataset called 'fakes'.*'fake'"):
        trained(config, tmp_path / "run")
    config = proxy_config(cache="memory")
    config.runtime.workers = 2
    with pytest.raises(ConfigError, match=r"cache=disk"):
        trained(config, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"data\.cache is '', 'memory' or 'disk'"):
        trained(proxy_config(cache="ram"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"data\.resize is 'pillow' or 'simd'"):
        trained(proxy_config(resize="area"), tmp_path / "run")


def listed(classes, count):
    """A part of a data set with so many images of each class, none of which is read."""
    pairs = sorted((f"{name}/{i:06d}", at) for at, name in enumerate(classes) for i in range(count))
    keys, labels = zip(*pairs, strict=True)
    return Source(keys, np.array(labels, np.int32), tuple(classes), None)


@pytest.mark.parametrize(
    ("module", "known", "each", "sides", "left"),
    [
        (mae_imagenet, tuple(imagenet.titles()), 110, 100, 13 * 800),
        (mae_places365, places365.classes(), 210, 50, 200 * 265),
    ],
)
def test_every_form_finds_its_images_in_sets_of_full_size(module, known, each, sides, left):
    """The papers' numbers of classes and images; the places have fewer images here than there."""
    own = {"train": listed(known, each), "eval": listed(known, 110)}
    taken, judged = sides * min(each, module.get_config().split.images_per_class), 5000
    want = dict(forget=taken, retain=taken, forget_eval=judged, retain_eval=judged)
    for split in ("released", "random"):
        for proxy, count in (("", 0), ("proxy", left), ("coco", 10_000)):
            config = complete_config(module.get_config(",".join(filter(None, (split, proxy)))))
            sources = own | ({"proxy": listed(["coco"], 20_000)} if proxy == "coco" else {})
            made = splits.make(config["split"], sources)
            counts = {name: len(each.keys) for name, each in made.items()}
            assert counts == want | ({"proxy": count} if count else {}), (split, proxy)
            assert {len(made[side].classes) for side in want} == {sides}
