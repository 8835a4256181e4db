"""The complete config of a run: plain dicts with a value for every argument of every plug-in."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from l2l_jax.engine.config import is_phase
from l2l_jax.lib import optim
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.signatures import keyword_defaults, merge_args
from l2l_jax.registry import find, main_function


def complete_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as plain dicts, with the default of every argument that its plug-ins take.

    This is what a run writes down and what the command line can override. A name that does not
    exist is left for `resolve` to refuse. A tuple of references becomes the text that the command
    line takes.
    """
    config = {key: plain(section) for key, section in config.items()}
    if isinstance(config.get("audits"), str):
        config["audits"] = tuple(name for name in config["audits"].split(",") if name)
    if isinstance(config.get("reference"), tuple):
        config["reference"] = os.pathsep.join(map(str, config["reference"]))
    for section, kind, name, key in _plugins(config):
        if not isinstance(section.get(key, {}), Mapping):
            continue
        with contextlib.suppress(ConfigError):
            taken = keyword_defaults(main_function(kind, find(kind, name)))
            section[key] = merge_args(taken, section.get(key, {}))
    for phase in filter(is_phase, config.values()):
        if isinstance(section := phase.get("optimizer"), dict):
            _complete_optimizer(section)
    for name, args in _sections(config, "evaluators"):
        with contextlib.suppress(ConfigError):
            plugin = find("evaluator", args.get("evaluator", name))
            config["evaluators"][name] = keyword_defaults(plugin.evaluate) | args
    return config


def _complete_optimizer(section: dict[str, Any]) -> None:
    """Adds the name and the arguments that an optimizer section lacks, as in an older run."""
    section.setdefault("name", optim.ADAMW)
    section.setdefault("args", {})
    if section["name"] in optim.NAMES and isinstance(section["args"], Mapping):
        taken = keyword_defaults(optim.arguments(section["name"]))
        section["args"] = merge_args(taken, section["args"])


def plain(value: Any) -> Any:
    """ConfigDicts and other mappings as dicts, at every depth; lists as tuples."""
    if isinstance(value, Mapping) or hasattr(value, "to_dict"):
        return {key: plain(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _plugins(config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str, str]]:
    """(section, kind, name, key of the arguments) of every plug-in with a section of its own."""
    named = [(config.get("model"), "model"), (config.get("data"), "dataset")]
    data = config.get("data")
    proxy = data.get("proxy") if isinstance(data, dict) else None
    named += [(proxy, "dataset")] if isinstance(proxy, dict) and proxy.get("name") else []
    other = data.get("other") if isinstance(data, dict) else None
    named += [(other, "dataset")] if isinstance(other, dict) and other.get("name") else []
    named += [(section, "feature_network") for _, section in _sections(config, "networks")]
    for section, kind in named:
        if isinstance(section, dict) and {"name", "args"} <= section.keys():
            yield section, kind, section["name"], "args"
    for phase in filter(is_phase, config.values()):
        yield phase, "method", phase["method"], "args"
        if "solver" in phase:
            yield phase, "solver", phase["solver"], "solver_args"
    for _, section in _sections(config, "tasks"):
        if "task" in section:
            yield section, "task", section["task"], "args"


def _sections(config: Mapping[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    found = config.get(key)
    entries = found.items() if isinstance(found, Mapping) else ()
    return [(name, section) for name, section in entries if isinstance(section, dict)]
