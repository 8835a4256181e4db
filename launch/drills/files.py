"""Tries hostile image, weights, array, list and record files, each with the command of a user.

    python -m launch.drills.files                   all of them, in two or three minutes
    python -m launch.drills.files --only pickle     those whose name contains a word

Every file is read in a process of its own, by the function that the command lines call. It must be
refused in one message that names it, in limited time (SECONDS) and memory (MEMORY_BYTES). A damaged
list of paths in the cache is no error: it is made again.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import NoReturn

from l2l_jax.lib import cli
from launch.drills.ending import ending, failed, table
from launch.drills.hostile_files import (
    ARRAYS,
    IMAGES,
    JSONS,
    MARK,
    RECORDS,
    SAFETENSORS,
    TEXTS,
    TORCH,
    Make,
)

MEMORY_BYTES = 3 << 30  # of data and heap
SECONDS = 40  # for one file, start-up included

# {group: (its files, the suffix, the call, made with the path as P)}
CALLS = {
    "images": (IMAGES, ".png", "from l2l_jax.data import images\nimages.decode(P, str(P))"),
    "torch": (
        TORCH, ".pth",
        "from l2l_jax.weights.__main__ import main\n"
        "main(['import', str(P), str(P) + '.safetensors'])",
    ),
    "safetensors": (
        SAFETENSORS, ".safetensors",
        "from l2l_jax.weights import pretrained\npretrained.load(str(P), 'mae', {'size': 'test'})",
    ),
    "arrays": (
        ARRAYS, ".npz",
        "from l2l_jax.data import image_tree\nassert image_tree._read_cache(P) == []",
    ),
    "lists": (TEXTS, ".txt", "CHOOSE"),
    "jsons": (JSONS, ".json", "CHOOSE"),
    "records": (
        RECORDS, ".array_record",
        "import types\nfrom l2l_jax.data.records import index\n"
        "shard = types.SimpleNamespace(filename=P, examples_in_shard=3)\n"
        "index._read_shard(index.Fields('file_name'), shard)",
    ),
}  # fmt: skip
CHOOSE = """
import numpy as np
from l2l_jax.data import class_selection
from l2l_jax.types import Source
keys = ('cats/1.png', 'cats/2.png')
source = Source(keys, np.zeros(2, np.int32), ('cats',), None)
class_selection.rows_of_list(P, {'train': source})
"""


def call_of(group: str) -> str:
    """The program that reads the file P; it is run in a process that has imported its modules."""
    call = CALLS[group][2]
    return CHOOSE if call == "CHOOSE" else call


def attempt(path: Path, call: str) -> str:
    """How the call ended for one file, as one of the words of launch/drills/ending.py.

    The call runs in a copy of this process, so that JAX is imported once and not for every file.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
            read(path, call)
        status = waited(child)
        said.seek(0)
        text = said.read()
    if os.path.exists(MARK):
        return "silent"
    if status is None:
        return "hung"
    code = os.waitstatus_to_exitcode(status)
    if "MemoryError" in text:
        return "traceback"
    result = subprocess.CompletedProcess([], code, text, "")
    return ending(result, equal="_read_cache" in call, names=(path.name,))


def read(path: Path, call: str) -> NoReturn:
    """Runs the call for the file as a command line does, and ends the process."""
    code = 1
    try:
        cli.run_with_clear_errors(exec, call, {"P": path})
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def waited(child: int) -> int | None:
    """The status of a process, or None if it does not end in SECONDS; it is killed then."""
    end = time.time() + SECONDS
    while time.time() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def tried(name: str, make: Make, suffix: str, call: str, verbose: bool) -> tuple[str, str]:
    """(name, ending) of one file, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="l2l_drill_") as folder:
        path = Path(folder) / f"hostile{suffix}"
        make(path)
        how = attempt(path, call)
    if verbose:
        print(f"{how:<10} {name}", flush=True)
    return name, how


def main() -> None:
    """The command line of this module's docstring."""
    parser = argparse.ArgumentParser("launch.drills.files", description=__doc__)
    parser.add_argument("--only", default="", help="try files whose name contains this")
    parser.add_argument("--verbose", action="store_true", help="print each line at once")
    args = parser.parse_args()
    began, rows = time.time(), []
    Path(MARK).unlink(missing_ok=True)
    warnings.filterwarnings("ignore", message=".*fork.*")
    for group, (files, suffix, _) in CALLS.items():
        call = call_of(group)
        exec("\n".join(line for line in call.splitlines() if line.startswith(("from", "import"))))
        for name, make in files.items():
            if args.only in name:
                rows.append(tried(name, make, suffix, call, args.verbose))
    print(table(rows, began))
    sys.exit(failed(rows))


if __name__ == "__main__":
    main()
