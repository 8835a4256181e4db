"""Workdirs of before keep their meaning, and what changes no result may change."""

import pytest

from l2l_jax.engine.config import complete_config
from l2l_jax.lib import files, since
from l2l_jax.lib.errors import ConfigError
from l2l_jax.workdir import claim
from tests.helpers import small_config


@pytest.mark.parametrize("data", ["fake", "imagenet"])
def test_an_older_workdir_can_be_continued_and_read(tmp_path, data):
    """All that a config of before issue 5 did not say, arguments of functions included."""
    config = small_config()
    if data == "imagenet":
        config.data.name, config.data.args = data, dict(root="")
    now = files.as_json(complete_config(config))
    old = files.as_json(now)
    del old["networks"], old["evaluators"]["inception_score"]["shuffle"]
    for key in ("proxy", "cache", "resize"):
        del old["data"][key]
    for side in ("forget", "retain", "proxy"):
        del old["split"][side]["images"], old["split"][side]["images_per_class"]
    for section in old["evaluators"].values():
        section.pop("network", None)
    for phase in old["phases"]:
        assert old[phase].pop("ema") == 0
    for key in ("target", "relative"):
        del old["unlearn"]["args"][key]
    if data == "imagenet":
        old["data"]["args"] = dict(root="")
    files.write_json(tmp_path / "config.json", old)
    claim.check(tmp_path, now)
    assert claim.config_of(tmp_path) == now
    walk = {"walk": {"method": "l2l", "solver": "epsilon", "solver_args": {"goal": "walk"}}}
    assert since.filled(walk)["walk"]["solver_args"] == {"goal": "walk", "control": ""}
    assert since.filled(now | {"unlearn": {**now["unlearn"], "ema": 0.9}})["unlearn"]["ema"] == 0.9
    now["split"]["forget"]["images"] = 5
    with pytest.raises(ConfigError, match=r"split\.forget\.images: 0 there, 5 here"):
        claim.check(tmp_path, now)


def test_a_cache_decides_nothing(tmp_path):
    config = files.as_json(complete_config(small_config()))
    files.write_json(tmp_path / "config.json", config)
    cached = files.as_json(config)
    cached["data"]["cache"] = "memory"
    cached["runtime"]["threads"] = 7
    claim.check(tmp_path, cached)
    config["spare"], cached["spare"] = config["unlearn"], config["unlearn"] | {"steps": 99}
    assert since.deciding(cached) == since.deciding(config)
    assert cached["data"]["cache"] == "memory", "what is given stays as it is"
    cached["data"]["resize"] = "simd"
    with pytest.raises(ConfigError, match=r"data\.resize"):
        claim.check(tmp_path, cached)
