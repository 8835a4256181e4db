"""What a config may say: every key has a reader, every name a file, every argument a function.

The shape of configs/common.py, seen from the other side: a key that nobody reads is an error.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from l2l_jax.lib import optim
from l2l_jax.lib.errors import ConfigError, unknown
from l2l_jax.lib.signatures import check_args, defaults, merged
from l2l_jax.registry import find
from l2l_jax.types import Evaluator

PHASE = ("method", "args", "solver", "solver_args", "steps", "batch_size", "accumulate", "tasks",
         "on", "saliency", "ema", "optimizer")  # fmt: skip
ONS = ("retain", "proxy", "all")
SIDE = ("classes", "files", "random", "rest", "images_per_class", "images")
SECTIONS = {
    "seed": None,
    "phases": None,
    "weights": None,
    "reference": None,
    "model": ("name", "args"),
    "data": ("name", "args", "crop", "flip", "resize", "cache", "proxy", "broken", "token_cache"),
    "split": ("forget", "retain", "proxy", "seed", "images_per_class", "eval_images_per_class"),
    "tasks": None,
    "evaluate": ("tasks", "batch_size"),
    "networks": None,
    "evaluators": None,
    "runtime": ("fsdp", "save_every", "keep", "log_every", "threads", "workers", "tensorboard",
                "token_folder", "begin_from", "profile_from", "profile_steps"),
}  # fmt: skip


def complete_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as plain dicts with every argument that a chosen file takes, defaults included.

    What a run writes down, and what the command line can override. Names that do not exist are left
    for `check` to complain about.
    """
    config = {key: _plain(section) for key, section in config.items()}
    for section, kind, function in _places(config):
        with contextlib.suppress(ConfigError):
            module = find(kind, section["name"])
            section["args"] = merged(defaults(getattr(module, function)), section["args"])
    for phase in filter(_is_phase, config.values()):
        with contextlib.suppress(ConfigError):
            method, solver = find("method", phase["method"]), find("solver", phase["solver"])
            phase["args"] = defaults(method.objectives) | phase["args"]
            phase["solver_args"] = defaults(solver.update) | phase["solver_args"]
    for task in config.get("tasks", {}).values():
        with contextlib.suppress(ConfigError, KeyError):
            task["args"] = defaults(find("task", task["task"]).mask) | task["args"]
    for name, args in config.get("evaluators", {}).items():
        with contextlib.suppress(ConfigError):
            module = find("evaluator", args.get("evaluator", name))
            config["evaluators"][name] = defaults(module.evaluate) | args
    return config


def figure_name(name: str, section: Mapping[str, Any], metric: str) -> str:
    """What a figure of config.evaluators[name] is called: fid_places, of fid under that name."""
    file = section.get("evaluator", name)
    figures = [] if file == name else find("evaluator", file).FIGURES
    return name + metric.removeprefix(figures[0].name) if figures else metric


def _plain(value: Any) -> Any:
    """ConfigDicts and other mappings as dicts, all the way down; lists as tuples."""
    if isinstance(value, Mapping) or hasattr(value, "to_dict"):
        return {key: _plain(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _places(config: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Sections with a name and arguments: (section, kind, function that takes the arguments)."""
    for name, kind, function in (
        ("model", "model", "build"),
        ("data", "dataset", "load"),
    ):
        if isinstance(config.get(name), dict) and {"name", "args"} <= config[name].keys():
            yield config[name], kind, function
    for section in config.get("networks", {}).values():
        if isinstance(section, dict) and {"name", "args"} <= section.keys():
            yield section, "feature_network", "build"
    proxy = config["data"].get("proxy", {}) if isinstance(config.get("data"), dict) else {}
    if proxy.get("name") and "args" in proxy:
        yield proxy, "dataset", "load"


def check_config(config: Mapping[str, Any]) -> None:
    """ConfigError for a key nobody reads or that is missing, a name nobody has, a bad argument."""
    phases = [key for key, section in config.items() if _is_phase(section)]
    for key in config:
        if key not in SECTIONS and key not in phases:
            raise unknown("config section", key, SECTIONS)
    for section, keys in SECTIONS.items():
        if section not in config:
            raise ConfigError(f"The config has no section {section!r}; see configs/common.py.")
        if keys:
            _check_keys(section, config[section], keys)
    cache = config["data"]["token_cache"]
    _check_keys("data.token_cache", cache, ("views", "noise"))
    if cache["views"] < 0 or cache["noise"] < 0:
        raise ConfigError(f"data.token_cache.views and noise are 0 or more, not {dict(cache)}.")
    _check_keys("data.proxy", config["data"]["proxy"], ("name", "args"))
    for side in ("forget", "retain", "proxy"):
        _check_keys(f"split.{side}", config["split"][side], SIDE)
    for key in ("save_every", "keep", "threads"):
        _check_positive("runtime", config["runtime"], key)
    if not config["phases"]:
        raise ConfigError("config.phases is empty: nothing would be done.")
    for phase in config["phases"]:
        if phase not in phases:
            raise unknown("phase", phase, phases)
        if config["phases"].count(phase) > 1:
            raise ConfigError(
                f"config.phases names {phase!r} twice; a phase has one place and one set of "
                "checkpoints. Give the second a section of its own."
            )
        _check_phase(phase, config[phase], config["tasks"])
    _check_modules(config)
    made = find("method", config[config["phases"][0]]["method"]).MAKES_ORIGINAL
    if not config["weights"] and not made:
        raise ConfigError(
            "config.weights is empty: there is no original to unlearn. Name a file, such as "
            "--config.weights=bundled:mae_fashion_mnist, or let phases begin with a pretrain."
        )


def _is_phase(section: Any) -> bool:
    return isinstance(section, Mapping) and "method" in section


def _check_keys(where: str, section: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in section:
        if key not in keys:
            raise unknown(f"key of {where}", key, keys)
    if missing := [key for key in keys if key not in section]:
        raise ConfigError(f"config.{where} lacks {', '.join(missing)}; see configs/common.py.")


def _check_phase(name: str, settings: Mapping[str, Any], tasks: Mapping[str, Any]) -> None:
    _check_keys(name, settings, PHASE)
    check_args(find("method", settings["method"]).objectives, settings["args"], f"{name}.args")
    solver = find("solver", settings["solver"]).update
    check_args(solver, settings["solver_args"], f"{name}.solver_args")
    optimizer = {"steps": settings["steps"], **settings["optimizer"]}
    check_args(optim.make, optimizer, f"{name}.optimizer")
    if settings["on"] not in ONS:
        raise unknown("value of 'on'", settings["on"], ONS)
    _check_tasks(f"{name}.tasks", settings["tasks"], tasks)
    for key in ("steps", "accumulate"):
        _check_positive(name, settings, key)
    if not 0 < settings["saliency"] <= 1:
        raise ConfigError(
            f"{name}.saliency is the share of the parameters that move, above 0 and at most 1, not "
            f"{settings['saliency']}."
        )
    if not 0 <= settings["ema"] < 1:
        raise ConfigError(
            f"{name}.ema is the decay of a moving average, below 1, such as 0.9999; 0 is for none. "
            f"It cannot be {settings['ema']}."
        )


def _check_positive(where: str, section: Mapping[str, Any], key: str) -> None:
    if section[key] < 1:
        raise ConfigError(f"{where}.{key} is at least 1, not {section[key]}.")


def _check_tasks(where: str, chosen: tuple[str, ...], tasks: Mapping[str, Any]) -> None:
    if not chosen:
        raise ConfigError(f"{where} is empty; choose some of {', '.join(tasks) or 'none'}.")
    for task in chosen:
        if task not in tasks:
            raise unknown("task", task, tasks, f"It is named in {where}.")


def _check_modules(config: Mapping[str, Any]) -> None:
    """The files that are named exist, and their functions take what is given to them."""
    for name, task in config["tasks"].items():
        _check_keys(f"tasks.{name}", task, ("task", "args"))
        check_args(find("task", task["task"]).mask, task["args"], f"tasks.{name}.args")
    _check_tasks("evaluate.tasks", config["evaluate"]["tasks"], config["tasks"])
    for section, kind, function in _places(config):
        module = find(kind, section["name"])
        check_args(
            getattr(module, function), section["args"], f"the args of the {kind} {section['name']}"
        )
    for name, section in config["networks"].items():
        _check_keys(f"networks.{name}", section, ("name", "args"))
    for name, section in config["evaluators"].items():
        _check_evaluator(name, section, tuple(config["networks"]))


def _check_evaluator(name: str, section: Mapping[str, Any], networks: tuple[str, ...]) -> None:
    args = {key: value for key, value in section.items() if key != "evaluator"}
    module = find("evaluator", section.get("evaluator", name))
    check_args(module.evaluate, args, f"evaluators.{name}")
    if args.get("network", "main") not in networks:
        raise unknown("network", args["network"], networks, f"evaluators.{name} asks for it.")
    for key, least in module.MINIMUMS.items():
        if not args.get(key, least) >= least:
            raise ConfigError(f"evaluators.{name}.{key}={args[key]}: it is at least {least}.")
    if "evaluator" in section and not _is_one_figure(module):
        raise ConfigError(
            f"evaluators.{name}: {section['evaluator']} has more than one figure and cannot stand "
            "under another name."
        )


def _is_one_figure(evaluator: Evaluator) -> bool:
    """Whether all figures are one figure and its spread, which can be called after a config key."""
    first, *others = evaluator.FIGURES or (None,)
    return first is not None and all(other.spread_of == first.name for other in others)
