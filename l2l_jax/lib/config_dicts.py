"""Configs as plain nested dicts: which part determines results, and values by dotted name."""

import copy
from collections.abc import Mapping
from typing import Any

FREE = ("runtime", "data.cache")  # do not change results; may differ between launches of a run


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the part of a config that determines results: no FREE keys, no unused phases."""
    config = copy.deepcopy(dict(config))
    for key in unused_phases(config):
        del config[key]
    for key in FREE:
        *path, last = key.split(".")
        section = config
        for name in path:
            section = section.get(name, {})
        section.pop(last, None)
    return config


def unused_phases(config: Mapping[str, Any]) -> list[str]:
    """Names of phase sections that config.phases does not list; they are never read."""
    sections = (key for key, section in config.items() if isinstance(section, Mapping))
    return [key for key in sections if "method" in config[key] and key not in config["phases"]]


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """{prefix + dotted name: value} of all values; an empty section counts as a value."""
    if not isinstance(config, Mapping) or not config:
        return {prefix.rstrip("."): config}
    parts = (leaves(value, f"{prefix}{key}.") for key, value in config.items())
    return {name: value for part in parts for name, value in part.items()}
