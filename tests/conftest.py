"""Eight CPU devices, float32 matrix products, caches of its own: set before JAX wakes up."""

import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "L2L_TEST_CACHE" not in os.environ:  # else this is a worker, and the process that began it has
    cache = tempfile.TemporaryDirectory(prefix="l2l_cache_")
    os.environ["L2L_TEST_CACHE"] = cache.name
os.environ["L2L_CACHE"] = f"{os.environ['L2L_TEST_CACHE']}/judges"

import jax
import pytest
from jaxtyping import install_import_hook

# Shapes and dtypes that annotations of these modules state are checked at every call.
CHECKED = ("models", "methods", "solvers", "tasks", "evaluators", "feature_networks", "engine.step",
           "lib.pixels", "lib.objectives", "lib.noise", "lib.masks")  # fmt: skip
install_import_hook([f"l2l_jax.{name}" for name in CHECKED], "beartype.beartype")

if jax.__version_info__[:2] == (0, 10):  # a flag that a later XLA may not know ends the process
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false"  # compiles in 3/4
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_default_matmul_precision", "highest")
# Programs are many and run for a moment: most of the time goes into compiling them. Processes that
# helpers.command starts compile as a user's do.
jax.config.update("jax_disable_most_optimizations", True)
# Many tests run the same small experiment: its programs are compiled once, those of the processes
# that helpers.command starts too.
jax.config.update("jax_compilation_cache_dir", f"{os.environ['L2L_TEST_CACHE']}/programs")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture
def optimised():
    """Programs as users have them: what two models have in common is computed once."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def _fresh_environment(monkeypatch):
    """No test reads the data folder of whoever runs it."""
    monkeypatch.setenv("L2L_DATA", "/nowhere")
