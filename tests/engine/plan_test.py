"""Any value at any place of a config is accepted or explained: never another error."""

import copy
import math

import pytest

from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.plan import resolve
from l2l_jax.lib.errors import ConfigError, UserError
from tests.helpers import small_config

VALUES = (None, 3, "x", (), {}, math.nan, True, "removed")


def places(section, path=()):
    for key, value in section.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


@pytest.mark.slow
def test_wrong_values_are_explained_wherever_they_are():
    whole, refused = complete_config(small_config().to_dict()), 0
    for path in places(whole):
        for value in VALUES:
            config = section = copy.deepcopy(whole)
            for key in path[:-1]:
                section = section[key]
            section[path[-1]] = value
            if value == "removed":
                del section[path[-1]]
            try:
                resolve(config)
            except UserError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"{'.'.join(path)} = {value!r}: {error!r}") from error
    assert refused > 500


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data", dict(proxy=dict(args=dict(a=1))), "data.proxy.args belong to no data set"),
        ("evaluators", dict(fid=3), "config.evaluators.fid is a section, not 3"),
        ("unlearn", dict(args="x"), "unlearn.args is a section, not 'x'"),
    ],
)
def test_sections_that_nobody_can_read(key, value, message):
    config = small_config().to_dict()
    for name, item in value.items():
        nested = isinstance(item, dict)
        config[key][name] = config[key].get(name, {}) | item if nested else item
    with pytest.raises(ConfigError, match=message):
        resolve(config)
