"""Which number type the computation runs in. Parameters, losses and metrics are float32 always."""

import contextlib

import jax
import jax.numpy as jnp

from l2l_jax.lib.errors import unknown


def modern_gpu() -> bool:
    """An NVIDIA GPU from Ampere (8.0) on, which computes in bfloat16 and fuses attention."""
    capability = getattr(jax.devices()[0], "compute_capability", "")  # an AMD GPU says gfx90a
    try:
        return jax.default_backend() == "gpu" and float(capability) >= 8.0
    except ValueError:
        return False


def compute_dtype(name: str) -> type:
    """'float32', 'bfloat16', or 'auto': bfloat16 on TPU and modern GPUs, float32 elsewhere."""
    dtypes = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if name == "auto":
        name = "bfloat16" if jax.default_backend() == "tpu" or modern_gpu() else "float32"
    if name not in dtypes:
        raise unknown("dtype", name, ["auto", *dtypes])
    return dtypes[name]


def exact(dtype: type) -> contextlib.AbstractContextManager:
    """Within it products of float32 are whole ones, also where an accelerator would round them."""
    whole = dtype == jnp.float32
    return jax.default_matmul_precision("highest") if whole else contextlib.nullcontext()
