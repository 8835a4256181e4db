"""Configs as plain nested dicts: which part determines results, and values by dotted name."""

import copy
from collections.abc import Mapping
from typing import Any

FREE = (
    "runtime",
    "report",
    "recipe",
    "data.cache",
)  # change no figures; may differ between launches


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


def withholds_forgotten(config: Mapping[str, Any]) -> bool:
    """Whether no page, demo or notebook may show the images that a run forgot.

    So it is if a list names them, because somebody may have asked to delete them, unless
    config.report.show_forgotten is set. Images of whole classes may be shown.
    """
    return forgets_a_list(config) and not config.get("report", {}).get("show_forgotten", False)


def forgets_a_list(config: Mapping[str, Any]) -> bool:
    """Whether a list names the images to forget; else they are those of whole classes."""
    forget = config["split"].get("forget", {})
    return isinstance(forget, Mapping) and bool(forget.get("files"))


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
