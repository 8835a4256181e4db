"""A proxy from another data set replaces the retain images in training; it is not evaluated."""

import dataclasses

import numpy as np
import pytest

from configs import mae_imagenet, mae_places365
from l2l_jax.data import splits
from l2l_jax.datasets import imagenet, places365
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.training_sets import passes, trained_on, training_splits
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.types import Source
from tests.helpers import assert_same_bits, open_with_data, params_of, small_config, trained


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
    """The workdir of a run with a proxy, without evaluation."""
    folder = tmp_path_factory.mktemp("proxy") / "run"
    trained(proxy_config(), folder)
    return folder


@pytest.mark.slow
def test_a_proxy_is_trained_on_and_recorded(plain):
    kept = {p.stem: files.read_json(p) for p in (plain / "splits").glob("*.json")}
    assert kept["proxy"]["part"] == "proxy"
    assert kept["proxy"]["count"] == 12
    assert kept["proxy"]["classes"] == ["sea", "class0"]
    assert kept["forget"]["count"] == 20
    assert "proxy_eval" not in kept
    experiment = open_with_data(plain)
    split = training_splits(experiment, "pretrain")["retain"]
    assert split.keys == tuple(kept["proxy"]["keys"])
    image = experiment.sources[split.part].read(split.indices[0])
    assert image.shape == (24, 24, 3), "images of the other data set are larger"
    assert trained_on(experiment.plan, experiment.splits) == {"proxy"}
    experiment = dataclasses.replace(experiment, plan=resolve(with_unlearn()))
    described = passes(experiment, "unlearn")
    digest = kept["proxy"]["digest"]
    assert described["retain"] == dict(split="proxy", digest=digest, images=12, passes=6 * 8 / 12)
    assert described["forget"]["passes"] == 6 * 8 / 20
    assert passes(experiment, "unlearn", steps=1)["forget"]["passes"] == 8 / 20
    pretrain = dataclasses.replace(experiment.plan.phases["pretrain"], on="all")
    phases = {"pretrain": pretrain}
    plan = dataclasses.replace(experiment.plan, phases=phases)
    experiment = dataclasses.replace(experiment, plan=plan)
    all_images = training_splits(experiment, "pretrain")["retain"]
    assert all_images.part == "train"
    assert len(all_images.keys) == 20 + 32, 'on="all" means all images of the data set itself'
    assert trained_on(plan, experiment.splits) == {"forget", "retain"}


@pytest.mark.slow
def test_a_cache_changes_no_bit(plain, tmp_path):
    trained(proxy_config(cache="memory"), tmp_path / "cached")
    assert_same_bits(params_of(tmp_path / "cached"), params_of(plain))
    for path in (plain / "splits").glob("*"):
        assert (tmp_path / "cached" / "splits" / path.name).read_bytes() == path.read_bytes()


def test_all_missing_data_are_listed_in_one_error(tmp_path):
    config = proxy_config()
    config.data.name, config.data.args = "imagenet", dict(root=str(tmp_path / "no"))
    config.data.proxy = dict(name="folder", args=dict(root=str(tmp_path / "nothing")))
    with pytest.raises(DataMissing) as error:
        trained(config, tmp_path / "run")
    assert "ImageNet" in str(error.value)
    assert "nothing" in str(error.value)


def test_wrong_settings_are_found_before_data_are_read(tmp_path):
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


def unreadable_source(classes, count):
    """A Source with `count` images of each class, which cannot be read."""
    pairs = sorted((f"{name}/{i:06d}", at) for at, name in enumerate(classes) for i in range(count))
    keys, labels = zip(*pairs, strict=True)
    return Source(keys, np.array(labels, np.int32), tuple(classes), None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "classes", "per_class", "side_classes", "proxy_images"),
    [
        (mae_imagenet, tuple(imagenet.titles()), 110, 100, 13 * 800),
        (mae_places365, places365.classes(), 210, 50, 200 * 265),
    ],
)
def test_splits_of_data_sets_of_full_size(module, classes, per_class, side_classes, proxy_images):
    """The numbers of classes and images of the papers, except few images of Places365."""
    own = {"train": unreadable_source(classes, per_class), "eval": unreadable_source(classes, 110)}
    per_class = min(per_class, module.get_config().split.images_per_class)
    train_images, eval_images = side_classes * per_class, 5000
    expected = dict(
        forget=train_images,
        retain=train_images,
        forget_eval=eval_images,
        retain_eval=eval_images,
    )
    for form in ("released", "random"):
        for proxy, count in (("", 0), ("proxy", proxy_images), ("coco", 10_000)):
            config = complete_config(module.get_config(",".join(filter(None, (form, proxy)))))
            sources = own | (
                {"proxy": unreadable_source(["coco"], 20_000)} if proxy == "coco" else {}
            )
            result = splits.make(config["split"], sources)
            counts = {name: len(split.keys) for name, split in result.items()}
            assert counts == expected | ({"proxy": count} if count else {}), (form, proxy)
            assert {len(result[side].classes) for side in expected} == {side_classes}
