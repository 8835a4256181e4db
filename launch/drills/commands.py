"""Runs commands of this project in forked processes, which need not import everything again.

The parent imports the project and does not start JAX; each child runs the function of one command
with its arguments, as `python -m` would, and ends. Its output and exit status are those of the
command.
"""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import l2l_jax
from l2l_jax import audit, evaluate, flags
from l2l_jax import main as main_command
from l2l_jax.lib import cli
from l2l_jax.lib.errors import UserError
from l2l_jax.report import __main__ as report
from l2l_jax.weights import __main__ as weights

RESTARTED = "L2L_DRILL_RESTARTED"  # an environment variable
Done = subprocess.CompletedProcess[str]


def restarted(module: str, *words: str) -> int | None:
    """Runs a drill again, by `WORDS python -m MODULE`, with the environment that it needs.

    That is read when JAX is imported: compiled programs are kept for all lines. Returns the exit
    status; None if this process has the environment already.
    """
    if RESTARTED in os.environ:
        return None
    with tempfile.TemporaryDirectory(prefix="l2l_programs_") as programs:
        env = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": programs,
               "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
               "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", RESTARTED: "1"}  # fmt: skip
        command = [*words, sys.executable, "-m", module, *sys.argv[1:]]
        return subprocess.run(command, env=os.environ | env, check=False).returncode


def _main(arguments: list[str]) -> None:
    sys.argv = ["main", *arguments]
    flags.run(main_command.main)


def _load(arguments: list[str]) -> None:
    """What a notebook does; a UserError is the message that its user sees."""
    cli.start_logging()
    try:
        loaded: Any = l2l_jax.load(arguments[0])
        print("\n".join(f"{name} {model.digest}" for name, model in loaded.items()))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "main": _main,
    "audit": lambda words: cli.run_with_clear_errors(audit.main, words),
    "evaluate": lambda words: cli.run_with_clear_errors(evaluate.main, words),
    "report": lambda words: cli.run_with_clear_errors(report.main, words),
    "export": lambda words: cli.run_with_clear_errors(weights.main, ["export", *words]),
    "load": _load,
}


def _child(
    command: str, arguments: list[str], env: Mapping[str, str], out: str, before: Callable[[], None]
) -> None:
    """Runs a command with its output in the file `out`; never returns."""
    handle = os.open(out, os.O_WRONLY)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.environ.update(env)
    status: Any = 0
    try:
        before()
        COMMANDS[command](arguments)
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def start(
    command: str,
    words: Sequence[str],
    env: Mapping[str, str],
    out: str,
    before: Callable[[], None] = lambda: None,
) -> Any:
    """Starts a command with its output in the file `out`; returns its multiprocessing.Process."""
    context: Any = multiprocessing.get_context("fork")
    child = context.Process(target=_child, args=(command, list(words), dict(env), out, before))
    child.start()
    return child


@contextlib.contextmanager
def started(
    command: str,
    arguments: Sequence[Any],
    env: Mapping[str, str],
    before: Callable[[], None] = lambda: None,
) -> Iterator[Callable[[float], Done | None]]:
    """Starts a command; yields a function of seconds that waits for its end; None if it is late.

    before: what the child does first, such as to make writes fail.
    """
    with tempfile.NamedTemporaryFile("r", errors="replace") as out:
        words = list(map(str, arguments))
        child = start(command, words, env, out.name, before)

        def wait(seconds: float) -> Done | None:
            child.join(seconds)
            if child.exitcode is None:
                return None
            return subprocess.CompletedProcess(
                words, child.exitcode, Path(out.name).read_text(errors="replace"), ""
            )

        try:
            yield wait
        finally:
            if child.exitcode is None:
                child.kill()
                child.join()
