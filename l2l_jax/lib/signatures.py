"""Keyword-only arguments of a plug-in's function: the keys of its `args` in a config."""

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from l2l_jax.bounds import Bounds
from l2l_jax.lib.errors import ConfigError, did_you_mean, short


def keyword_names(function: Callable) -> tuple[str, ...]:
    """Names of the keyword-only arguments of a function, in their order."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def keyword_defaults(function: Callable) -> dict[str, Any]:
    """{name: a copy of the default} of the keyword-only arguments that have one."""
    parameters = inspect.signature(function).parameters.values()
    keyword = (p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty)
    return {p.name: copy.deepcopy(p.default) for p in keyword}


def merge_args(default: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """The default arguments, replaced by `args` where it has the key; nested dicts are merged."""
    inner = {k for k, v in default.items() if isinstance(v, Mapping) and v}
    nested = {k: v for k, v in args.items() if isinstance(v, Mapping) and k in inner}
    return {**default, **args} | {k: merge_args(default[k], v) for k, v in nested.items()}


def check_args(
    function: Callable, args: Mapping[str, Any], where: str, bounds: Mapping[str, Any] | None = None
) -> None:
    """ConfigError for an argument that `function` does not take, or that cannot have its value.

    Also for a required argument that is missing. where: the config key of the arguments, for the
    message. bounds: BOUNDS of the plug-in (types.py). An argument has the type of its default.
    """
    known = keyword_names(function)
    for key in args:
        if key not in known:
            listed = ", ".join(known) or "no arguments"
            raise ConfigError(
                f"{where} does not take {key!r}.{did_you_mean(key, known)} It takes: {listed}."
            )
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        if parameter.name in args:
            key, value = f"{where}.{parameter.name}", args[parameter.name]
            check_type(key, value, *_kinds(parameter))
            check_value(key, value, (bounds or {}).get(parameter.name, Bounds()))
        elif parameter.default is parameter.empty:
            raise ConfigError(f"{where} needs a value for {parameter.name!r}.")


def _kinds(parameter: inspect.Parameter) -> tuple[str, tuple[type, ...]]:
    """(what an argument is, in words; its types), by its default and its annotation."""
    default = parameter.default
    for kind, (words, types) in KINDS.items():
        if isinstance(default, kind):  # bool comes before int
            whole = kind is int and parameter.annotation in (int, "int")
            return (words, types) if kind is not int or whole else ("number", (int, float))
    return "value", (object,)


KINDS: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("yes or no", (bool,)),
    int: ("whole number", (int,)),
    float: ("number", (float, int)),
    str: ("text", (str,)),
    tuple: ("tuple", (tuple, list)),
    Mapping: ("section", (Mapping,)),
}
MAX_TEXT = 4000  # characters: no path of a file is longer


def check_type(key: str, value: Any, words: str, types: tuple[type, ...], about: str = "") -> None:
    """ConfigError unless a value has one of the types. words: what it is. about: its meaning."""
    wrong_bool = isinstance(value, bool) and bool not in types and object not in types
    if not isinstance(value, types) or wrong_bool:
        raise ConfigError(f"{key} is a {words}, not {short(value)}{about}.")


def check_value(key: str, value: Any, bounds: "Bounds | Mapping", about: str = "") -> None:
    """ConfigError unless a value is within its bounds, a Bounds or one for each key of a dict.

    about: the meaning of the key, for the message.
    """
    if isinstance(value, Mapping):
        inner = bounds if isinstance(bounds, Mapping) else {}
        for name, item in value.items():
            check_value(f"{key}.{name}", item, inner.get(name, Bounds()))
        return
    if isinstance(value, str) and (len(value) > MAX_TEXT or "\0" in value):
        raise ConfigError(
            f"{key} is a text of at most {MAX_TEXT:,} characters without zeros{about}."
        )
    if isinstance(bounds, Bounds) and not bounds.allow(value):
        hint = did_you_mean(str(value), filter(None, bounds.choices))
        limits = str(bounds)
        if not limits or (isinstance(value, float) and not math.isfinite(value)):
            limits = ", ".join(filter(None, ("a finite number", limits)))
        raise ConfigError(f"{key} is {limits}, not {short(value)}{about}.{hint}")
