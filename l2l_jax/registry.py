"""("method", "max_loss") -> the module methods/max_loss.py. A name is a file; no registry."""

import importlib
from pathlib import Path
from types import ModuleType

from l2l_jax.lib.errors import unknown

FOLDERS = {
    "model": "models",
    "method": "methods",
    "solver": "solvers",
    "task": "tasks",
    "dataset": "datasets",
    "evaluator": "evaluators",
    "feature_network": "feature_networks",
}


def names(kind: str) -> list[str]:
    """Every name that `find(kind, name)` accepts."""
    if kind not in FOLDERS:
        raise unknown("kind of thing", kind, FOLDERS)
    folder = Path(__file__).parent / FOLDERS[kind]
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def find(kind: str, name: str) -> ModuleType:
    """The module of that name. An error inside the module is not renamed: it rises as it is."""
    known = names(kind)
    if name not in known:
        advice = f"To add it, create l2l_jax/{FOLDERS[kind]}/{name}.py."
        raise unknown(kind, name, known, advice)
    return importlib.import_module(f"l2l_jax.{FOLDERS[kind]}.{name}")
