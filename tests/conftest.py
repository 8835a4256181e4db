"""Eight CPU devices, float32 matrix products, a cache of its own: set before JAX wakes up."""

import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
cache = tempfile.TemporaryDirectory(prefix="l2l_cache_")
os.environ["L2L_CACHE"] = cache.name

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(autouse=True)
def _fresh_environment(monkeypatch):
    """No test reads the data folder of whoever runs it."""
    monkeypatch.setenv("L2L_DATA", "/nowhere")
