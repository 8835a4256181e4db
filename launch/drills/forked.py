"""Runs `python -m l2l_jax.main` many times, each in a fork of one process that imported it all.

Importing takes three seconds, so a drill of a hundred commands would take minutes for nothing else.
A fork begins where the import ended; JAX has started no devices by then. Each child runs the real
module from its first line, with its own arguments, standard output and working directory.
"""

import dataclasses
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence

from launch.drills.ending import ROOT

STEP_0 = "the run would begin now"  # printed in place of the phases


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line, and what is done in its process before it begins."""

    words: Sequence[str]
    before: Callable[[], None] | None = None
    module: str = "l2l_jax.main"


def warm_up() -> None:
    """Imports everything that a run imports before it begins."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("L2L_CACHE", tempfile.mkdtemp(prefix="l2l_drill_"))
    os.chdir(ROOT)
    import l2l_jax.engine.run
    import l2l_jax.flags
    import tests.helpers
    from l2l_jax.registry import FOLDERS, find, names

    del l2l_jax, tests
    for kind in FOLDERS:
        for name in names(kind):
            find(kind, name)


def stop_at_step_0(tell: Callable[[object], None] | None = None) -> None:
    """Ends the command with exit code 0 when all checks are done and the first phase would begin.

    tell: prints something about the experiment first.
    """
    import l2l_jax.engine.run

    def begin(experiment: object, _: object) -> None:
        if tell:
            tell(experiment)
        print(STEP_0, flush=True)
        os._exit(0)

    l2l_jax.engine.run.run_phases = begin  # pyright: ignore[reportAttributeAccessIssue]


def run_all(
    commands: Sequence[Command], seconds: float = 90, jobs: int = 2
) -> list[subprocess.CompletedProcess[str] | None]:
    """The finished commands in their order, `jobs` at a time; None for one that did not end."""
    results: list[subprocess.CompletedProcess[str] | None] = [None] * len(commands)
    waiting, running = list(enumerate(commands)), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            at, command = waiting.pop(0)
            output = tempfile.TemporaryFile()  # noqa: SIM115 - read when the child has ended
            running[_fork(command, output.fileno())] = (at, output, time.monotonic() + seconds)
        time.sleep(0.02)
        for pid, (at, output, end) in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done and time.monotonic() < end:
                continue
            if not done:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            else:
                output.seek(0)
                said = output.read().decode(errors="replace")
                code = os.waitstatus_to_exitcode(status)
                words = list(commands[at].words)
                results[at] = subprocess.CompletedProcess(words, code, "", said)
            output.close()
            del running[pid]
    return results


def _fork(command: Command, output: int) -> int:
    """Starts a command; its standard output and errors go to a file. Returns the process id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = [command.module, *command.words]
        if command.before:
            command.before()
        runpy.run_module(command.module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
