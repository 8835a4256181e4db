"""Small experiments, and functions to start processes, that several tests share."""

import fcntl
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from configs import common
from l2l_jax.engine.experiment import without_data
from l2l_jax.engine.outcome import final_weights, run_phases
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.run import run
from l2l_jax.engine.train import train
from l2l_jax.lib import files, trees
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.registry import find
from l2l_jax.workdir.layout import Workdir
from tests import _torchlike

ROOT = Path(__file__).parents[1]
FIXTURES = Path(__file__).parent / "fixtures"


def flip(path):
    """Changes one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def make_folder(path):
    """Puts an empty folder in the place of a file."""
    path.unlink()
    path.mkdir()


DAMAGE = {
    "one flipped bit": flip,
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "a folder": make_folder,
}


def small_model(name, **changes):
    """Builds the model of that name with its SMALLEST arguments and these changes."""
    module = find("model", name)
    return module.build(**(module.SMALLEST | changes))


def small_config(**changes):
    """A config that runs in seconds: synthetic images, the smallest MAE, two pretraining steps."""
    config = common.base()
    config.model = dict(name="mae", args=find("model", "mae").SMALLEST)
    config.data.name = "fake"
    config.data.args = dict(classes=4, train=16, eval=8, size=16)
    config.split.forget.classes = (0, 1)
    config.tasks = dict(
        random=dict(task="random", args=dict(ratio=0.75)),
        center=dict(task="center", args=dict(cells=2)),
    )
    config.phases = ("pretrain", "unlearn")
    config.pretrain = common.phase(
        "pretrain", steps=2, batch_size=8, tasks=("random",), on="all", optimizer=dict(lr=1e-3)
    )
    config.unlearn.update(dict(steps=6, batch_size=8, tasks=("random",)))
    config.evaluate.update(dict(tasks=("center",), batch_size=16))
    config.networks.main.args = dict(size=16, epochs=1, batch_size=16)
    config.runtime.update(dict(save_every=2, tensorboard=False, threads=2))
    config.update(changes)
    return config


def once(name, make):
    """Returns a folder that `make(folder)` fills once for all workers; tests may not change it."""
    folder = Path(os.environ["L2L_TEST_CACHE"]) / "once" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = folder.with_suffix(".done")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


def unpacked(name):
    """Returns the path of the decompressed tests/fixtures/NAME.xz."""
    path = Path(os.environ["L2L_TEST_CACHE"]) / "fixtures" / name
    if not path.exists():
        with files.atomic_write(path) as file:
            content = lzma.decompress((FIXTURES / f"{name}.xz").read_bytes())
            file.write(_torchlike.completed(name, content))
    return path


def finished_run():
    """Returns the workdir of the finished small experiment, run once for all workers; read-only."""
    return once("finished", lambda folder: run(small_config(), folder))


def trained(config, workdir):
    """Runs all phases and returns their Outcome, without evaluation and report."""
    return run_phases(preflight(resolve(config), workdir, StopSignal()), train)


def open_without_data(workdir):
    """Returns the experiment of a workdir without its data."""
    return without_data(resolve(Workdir(workdir).read_config()), workdir)


def open_with_data(workdir):
    """Returns the experiment of a workdir, after the checks that a new launch makes."""
    return preflight(resolve(Workdir(workdir).read_config()), workdir, StopSignal())


def params_of(workdir):
    """Returns the parameters after the last phase: {path: NumPy array}."""
    return trees.flatten(final_weights(workdir).params)


def assert_same_bits(a, b):
    """Asserts that two flat dicts of arrays are equal to the last bit."""
    assert a.keys() == b.keys()
    different = [name for name in a if not np.array_equal(a[name], b[name])]
    assert not different, f"{len(different)} of {len(a)} arrays differ, such as {different[:3]}"


def images(count, size, seed=0):
    """Returns random images, float32 [count, size, size, 3] in [0, 1]."""
    return jax.random.uniform(jax.random.key(seed), (count, size, size, 3))


def command(*words, devices=1, **environment):
    """Returns (arguments, environment) to start `python -m ...` as a new process.

    The process uses the compilation cache of conftest.py unless JAX_ENABLE_COMPILATION_CACHE=0, and
    compiles with few optimizations, as the tests do, unless JAX_DISABLE_MOST_OPTIMIZATIONS=0.
    """
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    env["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(seconds)
    env |= {"PYTHONPATH": str(ROOT)} | environment
    return [sys.executable, "-m", *map(str, words)], env


def call(*words, devices=1, timeout=300, **environment):
    """Runs `python -m ...` and returns the finished process with its output as text."""
    arguments, env = command(*words, devices=devices, **environment)
    return subprocess.run(
        arguments, env=env, cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )
