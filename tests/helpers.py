"""Small experiments and processes that several tests need."""

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
HASTY = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # for `command`: compiles in half the time


def small_model(name, **changes):
    """The smallest form of a model that its file knows."""
    module = find("model", name)
    return module.build(**(module.SMALLEST | changes))


def small_config(**changes):
    """A whole experiment in seconds: made-up images, the smallest MAE, pretrained for two steps."""
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
    """The folder that `make(folder)` fills: once for all workers, so nobody may change it."""
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
    """The path of tests/fixtures/NAME, which is kept as NAME.xz."""
    path = Path(os.environ["L2L_TEST_CACHE"]) / "fixtures" / name
    if not path.exists():
        with files.atomic_write(path) as file:
            content = lzma.decompress((FIXTURES / f"{name}.xz").read_bytes())
            file.write(_torchlike.completed(name, content))
    return path


def finished_run():
    """The workdir of the small experiment, done once for all workers; whoever alters it copies."""
    return once("finished", lambda folder: run(small_config(), folder))


def trained(config, workdir):
    """The outcome of a run's phases, without the evaluation and the page."""
    return run_phases(preflight(resolve(config), workdir, StopSignal()), train)


def opened(workdir):
    """The experiment of a workdir without its data."""
    return without_data(resolve(Workdir(workdir).read_config()), workdir)


def ready(workdir):
    """The experiment of a workdir, as a later launch finds it."""
    return preflight(resolve(Workdir(workdir).read_config()), workdir, StopSignal())


def params_of(workdir):
    """The parameters after the last phase, flat, as NumPy."""
    return trees.flatten(final_weights(workdir).params)


def assert_same_bits(a, b):
    """Two flat dicts of arrays are equal to the last bit."""
    assert a.keys() == b.keys()
    different = [name for name in a if not np.array_equal(a[name], b[name])]
    assert not different, f"{len(different)} of {len(a)} arrays differ, such as {different[:3]}"


def images(count, size, seed=0):
    """[count, size, size, 3] float32 in [0, 1]."""
    return jax.random.uniform(jax.random.key(seed), (count, size, size, 3))


def command(*words, devices=1, **environment):
    """(arguments, environment) of `python -m ...` in a process of its own.

    It takes compiled programs from the cache of conftest.py, unless JAX_ENABLE_COMPILATION_CACHE=0.
    """
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
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
