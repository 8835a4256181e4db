"""Installs this project into a Python that has JAX already, as Google Colab's has.

    python launch/colab.py

Only what is missing or too old is installed, and never another numpy, jax or jaxlib: those of Colab
fit its devices. If they do not fit this project, it says so.
"""

import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

KEPT = ("numpy", "jax", "jaxlib")
EXTRAS = ("", "notebook")  # of setup.cfg
ROOT = Path(__file__).parents[1]


def installed() -> dict[str, str]:
    """{name: version} of all packages of this Python."""
    found = importlib.metadata.distributions()
    return {canonicalize_name(each.metadata["Name"]): each.version for each in found}


def missing(requirements: Iterable[str], have: dict[str, str]) -> tuple[list[str], list[str]]:
    """(requirements that pip has to install, those of KEPT that do not fit)."""
    wanted, unfit = [], []
    for text in requirements:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if requirement.marker and not any(
            requirement.marker.evaluate({"extra": extra}) for extra in EXTRAS
        ):
            continue
        version = have.get(name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            line = f"{name}{requirement.specifier}"
            (unfit if name in KEPT and version else wanted).append(line)
    return wanted, unfit


def pip(*words: str) -> None:
    """Runs pip of this Python. CalledProcessError if it fails."""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *words], check=True)


def main() -> None:
    """Installs the project, and then what it lacks."""
    pip("--no-deps", "--editable", str(ROOT))
    have = installed()
    wanted, unfit = missing(importlib.metadata.requires("l2l_jax") or [], have)
    pins = [f"{name}=={have[name]}" for name in KEPT if name in have]
    print("kept:", ", ".join(pins) or "nothing")
    print("to install:", ", ".join(wanted) or "nothing")
    for line in unfit:
        print(f"does not fit, and is not changed: {line} is wanted")
    if wanted:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
            constraints.write("\n".join(pins))
            constraints.flush()
            pip("--constraint", constraints.name, *wanted)


if __name__ == "__main__":
    main()
