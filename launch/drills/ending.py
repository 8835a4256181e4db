"""How a command under a drill ended, in one word, and the table of a whole drill.

A drill damages something, or gives bad input, and runs a command of this project as a user would.

    explained   it stopped, with a message that names what is wrong and no traceback
    repaired    it finished, and its results are those of the undamaged run
    harmless    it finished, and the input was good or had no effect
    traceback   it stopped with a Python traceback, or was killed by a signal
    silent      it finished with other results, or stopped without a message
    hung        it did not end within the time given

The goal of every drill is that no line of its table ends in traceback, silent or hung.
"""

import collections
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOOD = ("explained", "repaired", "harmless")
BAD = ("traceback", "silent", "hung")


def run(
    arguments: Sequence[str], seconds: float = 300, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str] | None:
    """Runs `python ARGUMENTS` in the root of the project; None if it did not end in time."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **(env or {})}
    command = [sys.executable, *arguments]
    try:
        return subprocess.run(
            command, cwd=ROOT, env=environment, timeout=seconds, capture_output=True, text=True,
            errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None


def ending(
    result: subprocess.CompletedProcess[str] | None, equal: bool = False, names: Iterable[str] = ()
) -> str:
    """One of GOOD or BAD.

    equal: whether the results are those of the undamaged run; it counts only if the command
    finished. names: words of which the message must contain one, such as the damaged file's name.
    """
    if result is None:
        return "hung"
    said = result.stdout + result.stderr
    if result.returncode < 0 or "Traceback (most recent call last)" in said:
        return "traceback"
    if result.returncode == 0:
        return "repaired" if equal else "silent"
    wanted = tuple(names)
    told = any(word in said for word in wanted) if wanted else bool(said.strip())
    return "explained" if told else "silent"


def table(rows: Sequence[tuple[str, str]], began: float) -> str:
    """The lines (what was tried, its ending), with the sum of each ending and the time taken."""
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {how}" for name, how in rows]
    sums = collections.Counter(how for _, how in rows)
    counts = ", ".join(f"{sums[how]} {how}" for how in (*GOOD, *BAD) if sums[how])
    return "\n".join([*lines, "", f"{len(rows)} tried: {counts} ({time.time() - began:.0f} s)"])


def failed(rows: Sequence[tuple[str, str]]) -> int:
    """The exit status of a drill: 1 if a line ended badly, else 0."""
    return int(any(how in BAD for _, how in rows))
