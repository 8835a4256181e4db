"""Settings of all tests, made before JAX starts: eight CPU devices, float32, temporary caches."""

import gc
import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "L2L_TEST_CACHE" not in os.environ:  # else: a worker of a test process that has set it
    cache = tempfile.TemporaryDirectory(prefix="l2l_cache_")
    os.environ["L2L_TEST_CACHE"] = cache.name
os.environ["L2L_CACHE"] = f"{os.environ['L2L_TEST_CACHE']}/networks"

import jax
import pytest
from jaxtyping import install_import_hook

# In these modules, every call checks its arguments against the annotated shapes and dtypes.
CHECKED = ("models", "methods", "solvers", "tasks", "evaluators", "feature_networks", "engine.step",
           "lib.pixels", "lib.objectives", "lib.noise", "lib.masks")  # fmt: skip
install_import_hook([f"l2l_jax.{name}" for name in CHECKED], "beartype.beartype")

# Tracing makes many small objects that live long: Python's own threshold makes it look
# for cycles among them all the time.
gc.set_threshold(100_000, 20, 20)
# Eight devices wait for each other in threads that spin: a worker with its own core wastes less.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == int(os.environ["PYTEST_XDIST_WORKER_COUNT"]):
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw"))]})

# Tests compile many programs and run each for a moment, so compiling takes most of the time. These
# flags save a third of it; XLA ends the process at a flag that it does not know.
FLAGS = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_prefer_vector_width=128",
         "--xla_cpu_enable_concurrency_optimized_scheduler=false",
         "--xla_cpu_parallel_codegen_split_count=1")  # fmt: skip
if jax.__version_info__[:2] == (0, 10):
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_default_matmul_precision", "highest")
# The fixture `optimised` and JAX_DISABLE_MOST_OPTIMIZATIONS=0 compile as users do.
jax.config.update("jax_disable_most_optimizations", True)
# Many tests run the same small experiment. They and the processes that helpers.command starts share
# the compiled programs.
jax.config.update("jax_compilation_cache_dir", f"{os.environ['L2L_TEST_CACHE']}/programs")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture
def optimised():
    """Compiles with all optimizations, as users do: work that two models share is done once."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def _no_user_data(monkeypatch):
    """Tests never read the data folder of the user who runs them."""
    monkeypatch.setenv("L2L_DATA", "/nowhere")
