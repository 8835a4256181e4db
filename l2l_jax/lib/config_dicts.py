"""Configs as plain nested dicts: the part that decides results, and values by dotted name."""

import copy
from collections.abc import Mapping
from typing import Any

FREE = ("runtime", "data.cache")  # changes no result, and may differ between launches


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that decides results: without FREE and without unused phases."""
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
    """Sections of phases that config.phases does not name: nothing reads them."""
    sections = (key for key, section in config.items() if isinstance(section, Mapping))
    return [key for key in sections if "method" in config[key] and key not in config["phases"]]


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """{dotted name: value} of all values; an empty section counts as a value."""
    if not isinstance(config, Mapping) or not config:
        return {prefix.rstrip("."): config}
    parts = (leaves(value, f"{prefix}{key}.") for key, value in config.items())
    return {name: value for part in parts for name, value in part.items()}
