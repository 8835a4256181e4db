"""What of a config decides results, and what configs of older workdirs do not say yet."""

import copy
from collections.abc import Mapping
from typing import Any

FREE = ("runtime", "data.cache")  # changes no result, and may differ between launches
SINCE = {  # keys that older workdirs lack, and what they meant
    "networks": {},
    "data.proxy": {"name": "", "args": {}},
    "data.cache": "",
    "data.resize": "pillow",
    **{
        f"split.{side}.{key}": 0
        for side in ("forget", "retain", "proxy")
        for key in ("images_per_class", "images")
    },
    **{f"evaluators.{n}.network": "features" for n in ("fid", "inception_score", "cosine", "tsne")},
    "evaluators.inception_score.shuffle": True,
}
PHASE = {"ema": 0.0}  # of every phase, whatever it is called
ARGUMENTS = {"imagenet": {"format": "", "made_up": 0, "made_up_classes": []}}  # of data sets
OF_METHODS = {"l2l": {"target": "paper", "relative": False}}
OF_SOLVERS = {"epsilon": {"control": ""}}


def filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a workdir with the keys that came later."""
    config = copy.deepcopy(dict(config))
    for key, value in SINCE.items():
        section, last = _at(config, key)
        section.setdefault(last, copy.deepcopy(value))
    for section in config.values():
        if isinstance(section, dict) and "method" in section:
            section.update({key: value for key, value in PHASE.items() if key not in section})
            section["args"] = OF_METHODS.get(section["method"], {}) | section.get("args", {})
            later = OF_SOLVERS.get(section.get("solver"), {})
            section["solver_args"] = later | section.get("solver_args", {})
    if "data" in config:
        later = copy.deepcopy(ARGUMENTS.get(config["data"]["name"], {}))
        config["data"]["args"] = later | config["data"].get("args", {})
    return config


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what changes no result, phases that are not done included."""
    config = copy.deepcopy(dict(config))
    for key in idle(config):
        del config[key]
    for key in FREE:
        section, last = _at(config, key)
        section.pop(last, None)
    return config


def idle(config: Mapping[str, Any]) -> list[str]:
    """Sections of phases that config.phases does not name."""
    phases = (key for key, section in config.items() if hasattr(section, "keys"))
    return [key for key in phases if "method" in config[key] and key not in config["phases"]]


def _at(config: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """("data.cache") -> (config["data"], "cache"); of a section that is missing, an empty one."""
    *above, last = key.split(".")
    for name in above:
        config = config.get(name, {})
    return config, last
