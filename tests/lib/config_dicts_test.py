"""Keys that do not change results may change between launches; all others may not."""

import pytest

from l2l_jax.engine.complete import complete_config
from l2l_jax.lib import config_dicts, files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.workdir import claim
from tests.helpers import small_config


def test_a_cache_may_change_between_launches(tmp_path):
    config = files.as_json(complete_config(small_config()))
    files.write_json(tmp_path / "config.json", config)
    cached = files.as_json(config)
    cached["data"]["cache"] = "memory"
    cached["runtime"]["threads"] = 7
    claim.check_config_matches(tmp_path, cached)
    config["spare"], cached["spare"] = config["unlearn"], config["unlearn"] | {"steps": 99}
    assert config_dicts.decisive(cached) == config_dicts.decisive(config)
    assert cached["data"]["cache"] == "memory", "decisive() does not change its argument"
    cached["split"]["forget"]["images"] = 5
    with pytest.raises(ConfigError, match=r"split\.forget\.images: 0 there, 5 here"):
        claim.check_config_matches(tmp_path, cached)
    cached["split"]["forget"]["images"] = 0
    cached["data"]["resize"] = "simd"
    with pytest.raises(ConfigError, match=r"data\.resize"):
        claim.check_config_matches(tmp_path, cached)
