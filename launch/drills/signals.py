"""Ctrl-C and SIGTERM at many moments of a run: one line, the right exit code, nothing lost.

    python -m launch.drills.signals [--only TEXT] [--verbose]

Each case starts the smallest experiment as a user would, waits for a line of its log, sends signals
to all of its processes, as a terminal does, and waits for its end.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from launch.drills import ending

INT, TERM = signal.SIGINT, signal.SIGTERM
SECONDS = 60  # after the signal
LONG = ("--config.unlearn.steps=3000", "--config.runtime.save_every=1000")
CLASSIFIER = ("--config.networks.main.args.epochs=3000",)
# (name, line of the log, seconds after it, signals, further words of the command)
CASES = [
    ("Ctrl-C while Python imports", "", 0.7, [INT], ()),
    ("Ctrl-C while JAX is imported", "", 1.5, [INT], ()),
    ("Ctrl-C during the checks", "forget: ", 0.2, [INT], ()),
    ("Ctrl-C when a phase is compiled", "parameters are trained", 0.1, [INT], LONG),
    ("Ctrl-C in training", "unlearn 2/", 0.5, [INT], LONG),
    ("SIGTERM in training", "unlearn 2/", 0.5, [TERM], LONG),
    ("Ctrl-C in training with workers", "unlearn 2/", 0.5, [INT],
     (*LONG, "--config.runtime.workers=1")),
    ("Ctrl-C twice in training", "unlearn 2/", 0.5, [INT, INT], LONG),
    ("SIGTERM, then Ctrl-C in training", "unlearn 2/", 0.5, [TERM, INT], LONG),
    ("Ctrl-C when the classifier is trained", "training a classifier", 1.0, [INT], CLASSIFIER),
    ("SIGTERM when the classifier is trained", "training a classifier", 1.0, [TERM], CLASSIFIER),
    ("Ctrl-C during the evaluation", "held-out accuracy", 0.5, [INT], ()),
    ("Ctrl-C late in the evaluation", "held-out accuracy", 3.0, [INT], ()),
]  # fmt: skip


def stop(
    words: list[str], line: str, delay: float, numbers: list[int], log: Path
) -> subprocess.CompletedProcess[str] | None:
    """Runs a command, sends it signals after a line of its log, and waits for its end."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ending.ROOT, env=env, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    end = time.monotonic() + 5 * SECONDS
    while line not in log.read_text() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(delay)
    for number in numbers:
        if process.poll() is None:
            os.killpg(process.pid, number)
            time.sleep(0.3)
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None
    return subprocess.CompletedProcess(words, process.returncode, "", log.read_text())


def judge(result: subprocess.CompletedProcess[str] | None, numbers: list[int]) -> str:
    """How a stopped command ended; silent if its exit code is not that of one of the signals."""
    how = ending.ending(result, names=["stopped by "])
    codes = [128 + number for number in numbers]
    return "silent" if how == "explained" and result and result.returncode not in codes else how


def main() -> None:
    """The drill of this file's docstring."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--verbose", action="store_true", help="print what each command said")
    args = parser.parse_args()
    began, rows = time.time(), []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/compiled"
        for at, (name, line, delay, numbers, more) in enumerate(CASES):
            if args.only not in name:
                continue
            os.environ["L2L_CACHE"] = f"{folder}/cache{at}"
            words = ["-m", "l2l_jax.main", "--config", "tests/configs/small.py", "--workdir",
                     f"{folder}/run{at}", "--config.runtime.log_every=0.0", *more]  # fmt: skip
            result = stop(words, line, delay, numbers, Path(folder) / f"{at}.log")
            rows.append((name, how := judge(result, numbers)))
            if result and (args.verbose or how != "explained"):
                print(f"--- {name}: exit code {result.returncode}\n{result.stderr[-4000:]}")
    print(ending.table(rows, began))
    sys.exit(ending.failed(rows))


if __name__ == "__main__":
    main()
