"""Keyword-only arguments of a function: what a config may say about a plug-in."""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from l2l_jax.lib.errors import ConfigError, did_you_mean


def accepts(function: Callable) -> tuple[str, ...]:
    """The keyword-only arguments of a function: the schema of its config."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def defaults(function: Callable) -> dict[str, Any]:
    """The keyword-only arguments that have a default, with it."""
    parameters = inspect.signature(function).parameters.values()
    keyword = (p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty)
    return {p.name: copy.deepcopy(p.default) for p in keyword}


def merged(default: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The default with what is given in its place, also inside of an argument that is a dict."""
    both = {k: v for k, v in given.items() if isinstance(v, Mapping) and default.get(k)}
    return {**default, **given} | {k: merged(default[k], v) for k, v in both.items()}


def check_args(function: Callable, given: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError for an argument that `function` does not take, or lacks."""
    takes = accepts(function)
    for key in given:
        if key not in takes:
            listed = ", ".join(takes) or "no arguments"
            raise ConfigError(
                f"{where} does not take {key!r}.{did_you_mean(key, takes)} It takes: {listed}."
            )
    for parameter in inspect.signature(function).parameters.values():
        needed = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        if needed and parameter.name not in given:
            raise ConfigError(f"{where} needs a value for {parameter.name!r}.")
