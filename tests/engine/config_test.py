"""Every key of a config has a default, a type, bounds and a meaning; values are checked."""

import copy
import re

import pytest

from l2l_jax.engine import config
from l2l_jax.lib.errors import ConfigError
from launch import config_reference
from tests.helpers import ROOT


def default_config():
    """Returns the defaults: a config in which the plug-ins have no names yet."""
    return config.defaults()


def with_value(key, value):
    section = result = copy.deepcopy(default_config())
    *path, last = key.split(".")
    for part in path:
        section = section[part]
    section[last] = value
    return result


def test_the_defaults_are_within_their_bounds():
    config.check(default_config())


@pytest.mark.parametrize(("key", "option"), list(config.documented()))
def test_every_key_has_a_meaning_that_fits_a_line(key, option):
    assert 5 <= len(option.meaning) <= 160, key
    assert "\n" not in option.meaning


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "split.forget.images",
            -1,
            r"split\.forget\.images is at least 0 and at most 1,000,000,000, not -1",
        ),
        ("split.images_per_class", -5, r"split\.images_per_class is at least 0 and .*, not -5"),
        (
            "unlearn.optimizer.lr",
            -1.0,
            r"optimizer\.lr is at least 0 and at most 10, not -1\.0: peak",
        ),
        ("unlearn.optimizer.b1", 1.0, r"optimizer\.b1 is at least 0 and below 1, not 1\.0"),
        ("unlearn.optimizer.b2", 1.5, r"optimizer\.b2 is at least 0 and below 1, not 1\.5"),
        ("unlearn.optimizer.eps", -1e-8, r"optimizer\.eps is above 0 and at most 1, not"),
        ("unlearn.optimizer.weight_decay", -1.0, r"weight_decay is at least 0"),
        (
            "unlearn.optimizer.lr",
            float("nan"),
            r"optimizer\.lr is a finite number, at least 0 and at most 10, not nan",
        ),
        (
            "unlearn.batch_size",
            10**9,
            r"unlearn\.batch_size is at least 1 and at most 1,048,576, not",
        ),
        ("unlearn.steps", 0, r"unlearn\.steps is at least 1 and at most 100,000,000, not 0"),
        ("unlearn.steps", 1.5, r"unlearn\.steps is a whole number, not 1\.5"),
        ("unlearn.steps", True, r"unlearn\.steps is a whole number, not True"),
        ("unlearn.saliency", 0.0, r"unlearn\.saliency is above 0 and at most 1, not 0\.0"),
        (
            "unlearn.on",
            "retained",
            r"unlearn\.on is 'retain', 'proxy' or 'all', not 'retained'\. Did",
        ),
        ("runtime.fsdp", 0, r"runtime\.fsdp is at least 1 and at most 1,048,576, or -1, not 0"),
        (
            "data.cache",
            "dsik",
            r"data\.cache is '', 'memory' or 'disk', not 'dsik'\. Did you mean 'disk'",
        ),
        (
            "data.token_cache.views",
            -1,
            r"token_cache\.views is at least 0 and at most 10,000, not -1",
        ),
        ("data.flip", 1, r"data\.flip is a yes or no, not 1"),
        ("seed", -1, r"seed is at least 0 and at most 4,294,967,295, not -1"),
        ("seed", 2**32, r"seed is at least 0 and at most 4,294,967,295, not 4294967296"),
        ("split.seed", -1, r"split\.seed is at least 0"),
        ("unlearn.optimizer.lr", 1e9, r"lr is at least 0 and at most 10, not 1000000000\.0: peak"),
        ("unlearn.optimizer.eps", 0.0, r"eps is above 0"),
        ("unlearn.optimizer.warmup", 1.0, r"warmup is at least 0 and below 1, not 1\.0"),
        ("unlearn.steps", 10**12, r"steps is at least 1 and at most 100,000,000, not"),
        ("unlearn.steps", "7", r"unlearn\.steps is a whole number, not '7'"),
        ("unlearn.tasks", (3,), r"unlearn\.tasks\[0\] is a text, not 3"),
        ("unlearn.tasks", "random", r"unlearn\.tasks is a tuple, not 'random'"),
        ("phases", ("unlearn", None), r"phases\[1\] is a text, not None"),
        ("split.forget.classes", (0, 1.5), r"classes\[1\] is a text or whole number, not 1\.5"),
        ("split.forget.classes", (-1,), r"forget\.classes is at least 0, not \(-1,\)"),
        ("data.crop", (float("nan"), 1.0), r"data\.crop is a finite|data\.crop is above 0"),
        ("data.crop", (0.0, 1.0), r"data\.crop is above 0 and at most 1"),
        ("data.crop", ("a", 1.0), r"data\.crop\[0\] is a number, not 'a'"),
        ("weights", "a\0b", r"weights is a text of at most 4,000 characters without zeros"),
        ("reference", "r" * 5000, r"reference is a text of at most 4,000 characters"),
        ("split.duplicates", "alow", r"'stop' or 'allow', not 'alow'.*Did you mean 'allow'"),
        ("evaluate", 3, r"config\.evaluate is a section, not 3"),
    ],
)
def test_values_out_of_bounds_are_refused(key, value, message):
    with pytest.raises(ConfigError, match=message):
        config.check(with_value(key, value))


@pytest.mark.parametrize(
    ("key", "option"),
    [(k, o) for k, o in config.flatten(config.TABLE) if o.kind.endswith("number")],
)
def test_every_number_is_bounded_on_both_sides(key, option):
    assert option.low > -config.INF, key
    assert option.high < config.INF or key.endswith(".clip"), "any norm may be a limit"
    wrong = [float("nan"), float("inf"), option.low - 1] if option.kind == "number" else []
    for value in [*wrong, -(10**30), 10**30]:
        if value != 10**30 or option.high < config.INF:
            with pytest.raises(ConfigError, match=f"^{re.escape(key)} is a"):
                config.check(with_value(key, value))


def test_minus_one_device_means_all():
    config.check(with_value("runtime.fsdp", -1))


def test_the_reference_page_is_made_from_the_table():
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == config_reference.page(), "run python launch/config_reference.py"
