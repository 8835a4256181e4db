"""The console script `l2l-jax`: one subcommand for each command line of the package.

    l2l-jax run --config fashion_mnist --workdir runs/demo
    l2l-jax audit --workdir runs/demo

A subcommand is the same as `python -m` with its module. A line of COMMANDS adds one; a module that
does not exist is not listed.
"""

import importlib.util
import runpy
import sys

import l2l_jax
from l2l_jax.lib import cli
from l2l_jax.lib.errors import ConfigError, did_you_mean

COMMANDS = {  # {subcommand: (module, what it does)}
    "run": ("l2l_jax.main", "run an experiment, or continue it"),
    "evaluate": ("l2l_jax.evaluate", "evaluate the last checkpoint of a run again"),
    "audit": ("l2l_jax.audit", "attack the result of a run: does the forgetting hold?"),
    "report": ("l2l_jax.report", "write the page of a run, or one that compares runs"),
    "weights": ("l2l_jax.weights", "list, import and export weights files"),
    "fetch": ("l2l_jax.weights.fetch", "download official weights and feature networks"),
    "benchmark": ("l2l_jax.benchmark", "time a train step, or the input pipeline"),
    "demo": ("l2l_jax.demo", "paint on images and compare what the models of runs complete"),
    "record": ("l2l_jax.record", "write, sign and check the record of a run"),
}


def available() -> dict[str, tuple[str, str]]:
    """The entries of COMMANDS whose module exists."""
    return {name: entry for name, entry in COMMANDS.items() if importlib.util.find_spec(entry[0])}


def usage() -> str:
    """The text of `l2l-jax --help`."""
    lines = [f"  {name:<10} {meaning}" for name, (_, meaning) in available().items()]
    return "\n".join(
        [
            f"usage: {cli.SCRIPT} COMMAND [OPTIONS]",
            "",
            "Makes a pretrained image-to-image model forget images, and shows whether it has.",
            "",
            "Commands:",
            *lines,
            "",
            f"'{cli.SCRIPT} COMMAND --help' explains a command.",
        ]
    )


def main() -> None:
    """Runs the subcommand that the first argument names, in this process."""
    cli.run_with_clear_errors(_choose)
    if module := available().get((sys.argv[1:] or [""])[0]):
        sys.argv = [f"{cli.SCRIPT} {sys.argv[1]}", *sys.argv[2:]]
        runpy.run_module(module[0], run_name="__main__")


def _choose() -> None:
    """Prints what is not the work of a subcommand. ConfigError for an unknown one."""
    name, known = (sys.argv[1:] or ["--help"])[0], available()
    if name in ("--help", "-h", "help"):
        print(usage())
    elif name == "--version":
        print(l2l_jax.__version__)
    elif name not in known:
        raise ConfigError(
            f"{cli.SCRIPT} has no command {name!r}.{did_you_mean(name, known)} "
            f"Commands: {', '.join(known)}."
        )
