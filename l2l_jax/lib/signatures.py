"""Keyword-only arguments of a plug-in's function: the keys of its `args` in a config."""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from l2l_jax.lib.errors import ConfigError, did_you_mean


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
    nested = {k: v for k, v in args.items() if isinstance(v, Mapping) and default.get(k)}
    return {**default, **args} | {k: merge_args(default[k], v) for k, v in nested.items()}


def check_args(function: Callable, args: Mapping[str, Any], where: str) -> None:
    """ConfigError if `args` has a key that `function` does not take, or lacks a required one.

    where: the config key of the arguments, for the message.
    """
    known = keyword_names(function)
    for key in args:
        if key not in known:
            listed = ", ".join(known) or "no arguments"
            raise ConfigError(
                f"{where} does not take {key!r}.{did_you_mean(key, known)} It takes: {listed}."
            )
    for parameter in inspect.signature(function).parameters.values():
        required = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        if required and parameter.name not in args:
            raise ConfigError(f"{where} needs a value for {parameter.name!r}.")
