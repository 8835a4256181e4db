"""Bounds of arguments: what they allow, how they read, and that every plug-in's own fit them."""

import math

import pytest

from l2l_jax.bounds import Bounds
from l2l_jax.lib import signatures
from l2l_jax.lib.errors import ConfigError
from l2l_jax.registry import FUNCTIONS, find, main_function, names

PLUGINS = [(kind, name) for kind in FUNCTIONS for name in names(kind)]


@pytest.mark.parametrize(
    ("bounds", "good", "bad"),
    [
        (Bounds(), (0, -1e300, "x", True), (math.nan, math.inf, -math.inf)),
        (Bounds(1), (1, 1e9), (0, math.inf)),
        (Bounds(0, 1, open_low=True), (1, 0.5), (0, 1.5, math.nan)),
        (Bounds(0, 1, open_high=True), (0, (0, 0.5)), (1, (0, 1))),
        (Bounds(1, open_low=True, special=(0,)), (0, 1.5), (1, 0.5)),
        (Bounds(0, special=(math.inf,)), (0, math.inf), (-1, math.nan)),
        (Bounds(choices=("a", "b")), ("a", "b"), ("c", "")),
    ],
)
def test_what_bounds_allow(bounds, good, bad):
    assert [value for value in good if not bounds.allow(value)] == []
    assert [value for value in bad if bounds.allow(value)] == []


def test_bounds_in_words():
    assert str(Bounds()) == ""
    assert str(Bounds(1, 10_000)) == "at least 1 and at most 10,000"
    assert str(Bounds(0, 1, open_low=True, open_high=True)) == "above 0 and below 1"
    assert str(Bounds(1, special=(-1,))) == "at least 1, or -1"
    assert str(Bounds(choices=("a",))) == "'a'"
    assert str(Bounds(choices=("a", "b", "c"))) == "'a', 'b' or 'c'"


def function(*, whole: int = 1, number: int | float = 1, flag: bool = False, text: str = "",
             several: tuple = (), nested: dict = {}):  # noqa: B006  # fmt: skip
    return whole, number, flag, text, several, nested


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (dict(whole=1.5), r"^x\.whole is a whole number, not 1\.5"),
        (dict(whole=True), r"^x\.whole is a whole number, not True"),
        (dict(number="3"), r"^x\.number is a number, not '3'"),
        (dict(number=math.nan), r"^x\.number is a finite number, at least 0, not nan"),
        (dict(flag=1), r"^x\.flag is a yes or no, not 1"),
        (dict(text=None), r"^x\.text is a text, not None"),
        (dict(text="a\0"), r"^x\.text is a text of at most .* without zeros"),
        (dict(several=3), r"^x\.several is a tuple, not 3"),
        (dict(several=(1, math.inf)), r"^x\.several is a finite number, not \(1, inf\)"),
        (dict(nested=dict(a=dict(b=math.nan))), r"^x\.nested\.a\.b is a finite number, not nan"),
        (dict(nested=dict(c=5)), r"^x\.nested\.c is at most 4, not 5"),
        (dict(whole=0), r"^x\.whole is at least 1, not 0"),
    ],
)
def test_wrong_types_and_values_of_arguments(args, message):
    bounds = {"whole": Bounds(1), "number": Bounds(0), "nested": {"c": Bounds(high=4)}}
    with pytest.raises(ConfigError, match=message):
        signatures.check_args(function, args, "x", bounds)


def test_good_arguments_pass():
    args = dict(whole=2, number=0.5, flag=True, text="t", several=[1, 2], nested={"a": 1})
    signatures.check_args(function, args, "x", {})


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_a_plugin_bounds_its_own_arguments_and_its_defaults_fit(kind, name):
    plugin = find(kind, name)
    main = main_function(kind, plugin)
    assert set(plugin.BOUNDS) <= set(signatures.keyword_names(main))
    given = [getattr(plugin, key, None) for key in ("SMALLEST", "EXAMPLE")]
    for args in ({}, *filter(None, given), *getattr(plugin, "VARIANTS", ())):
        complete = signatures.merge_args(signatures.keyword_defaults(main), args)
        signatures.check_args(main, complete, name, plugin.BOUNDS)


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_numbers_of_a_plugin_are_finite(kind, name):
    plugin = find(kind, name)
    main = main_function(kind, plugin)
    for key, default in signatures.keyword_defaults(main).items():
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert key in plugin.BOUNDS or key == "epsilon", f"{key} has no bounds"
            for value in (math.nan, math.inf, -math.inf):
                with pytest.raises(ConfigError, match=f"^here.{key} is a"):
                    signatures.check_args(main, {key: value}, "here", plugin.BOUNDS)
