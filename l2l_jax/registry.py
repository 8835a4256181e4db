"""Finds plug-ins: a name is a file, find("method", "max_loss") reads methods/max_loss.py.

The result is a dataclass of types.py, so that everything a plug-in may contain is declared there.
Folders outside of the package are searched too: with L2L_PLUGINS=/home/me/mine the file
/home/me/mine/methods/my_method.py is the method "my_method".
"""

import dataclasses
import difflib
import functools
import importlib
import os
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, overload

from l2l_jax.lib.errors import unknown_name
from l2l_jax.types import (
    Audit,
    Dataset,
    Evaluator,
    FileFormat,
    Method,
    ModelFile,
    NetworkFile,
    Solver,
    Task,
)

FOLDERS = {
    "model": "models",
    "method": "methods",
    "solver": "solvers",
    "task": "tasks",
    "dataset": "datasets",
    "evaluator": "evaluators",
    "audit": "audits",
    "feature_network": "feature_networks",
    "format": "weights.formats",
}
CONTENTS: dict[str, Any] = {
    "model": ModelFile,
    "method": Method,
    "solver": Solver,
    "task": Task,
    "dataset": Dataset,
    "evaluator": Evaluator,
    "audit": Audit,
    "feature_network": NetworkFile,
    "format": FileFormat,
}
FUNCTIONS = {  # the function of a plug-in whose keyword-only arguments the config sets
    "model": "build",
    "method": "objectives",
    "solver": "update",
    "task": "mask",
    "dataset": "load",
    "evaluator": "evaluate",
    "audit": "audit",
    "feature_network": "build",
}


def names(kind: str) -> list[str]:
    """Every name that `find(kind, name)` accepts, sorted."""
    found = pkgutil.iter_modules(_package(kind).__path__)
    return sorted(each.name for each in found if not each.ispkg and each.name[0] != "_")


@overload
def find(kind: Literal["model"], name: str) -> ModelFile: ...
@overload
def find(kind: Literal["method"], name: str) -> Method: ...
@overload
def find(kind: Literal["solver"], name: str) -> Solver: ...
@overload
def find(kind: Literal["task"], name: str) -> Task: ...
@overload
def find(kind: Literal["dataset"], name: str) -> Dataset: ...
@overload
def find(kind: Literal["evaluator"], name: str) -> Evaluator: ...
@overload
def find(kind: Literal["audit"], name: str) -> Audit: ...
@overload
def find(kind: Literal["feature_network"], name: str) -> NetworkFile: ...
@overload
def find(kind: Literal["format"], name: str) -> FileFormat: ...
@overload
def find(kind: str, name: str) -> Any: ...
def find(kind: str, name: str) -> Any:
    """The plug-in of that name, as the dataclass of its kind.

    Raises ConfigError if there is no such name, and TypeError if the file does not contain what
    its kind requires. An error inside the file rises as it is.
    """
    package = _package(kind)
    known = names(kind)
    if name not in known:
        advice = f"To add it, create l2l_jax/{FOLDERS[kind].replace('.', '/')}/{name}.py."
        raise unknown_name(kind.replace("_", " "), name, known, advice)
    return read(kind, importlib.import_module(f"{package.__name__}.{name}"))


def find_format(model: str) -> FileFormat:
    """The official file format of a model; one without NAMES if the model has none."""
    return find("format", model) if model in names("format") else FileFormat(model)


def main_function(kind: str, plugin: Any) -> Any:
    """The function of a plug-in whose keyword-only arguments are its `args` in the config."""
    return getattr(plugin, FUNCTIONS[kind])


def read(kind: str, module: ModuleType) -> Any:
    """A module as the dataclass of its kind. TypeError names what is missing or misspelt."""
    content = CONTENTS[kind]
    fields = {field.name: field for field in dataclasses.fields(content) if field.name != "name"}
    values = {key: getattr(module, key) for key in fields if hasattr(module, key)}
    missing = [
        key
        for key, field in fields.items()
        if key not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise TypeError(
            f"{module.__file__} is no {kind.replace('_', ' ')}: it lacks {', '.join(missing)}. "
            f"l2l_jax.types.{content.__name__} says what it contains."
        )
    constants = [key for key in vars(module) if key.isupper() and key not in fields]
    for key in constants:
        near = difflib.get_close_matches(key, [name for name in fields if name.isupper()], 1, 0.85)
        if near and near[0] not in values:
            raise TypeError(f"{module.__file__} sets {key}; did you mean {near[0]}?")
    return content(name=module.__name__.rpartition(".")[2], **values)


@functools.cache
def _package(kind: str) -> ModuleType:
    """The package that holds the plug-ins of a kind, extended by the folders of L2L_PLUGINS."""
    if kind not in FOLDERS:
        raise unknown_name("kind of plug-in", kind, FOLDERS)
    package = importlib.import_module(f"l2l_jax.{FOLDERS[kind]}")
    for root in plugin_folders():
        folder = root.joinpath(*FOLDERS[kind].split("."))
        if folder.is_dir():
            package.__path__.append(str(folder))
    return package


def plugin_folders() -> list[Path]:
    """The folders that L2L_PLUGINS names, separated like those of PATH."""
    given = os.environ.get("L2L_PLUGINS", "")
    return [Path(part).expanduser() for part in given.split(os.pathsep) if part]
