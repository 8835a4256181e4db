"""The dtype of the computation. Parameters, losses and metrics are always float32."""

import contextlib

import jax
import jax.numpy as jnp

from l2l_jax.lib.errors import unknown_name

DTYPES = ("auto", "float32", "bfloat16")


def modern_gpu() -> bool:
    """Whether the first device is an NVIDIA GPU of compute capability 8.0 (Ampere) or later.

    Such a GPU has bfloat16 and fused attention.
    """
    capability = getattr(jax.devices()[0], "compute_capability", "")  # "gfx90a" on an AMD GPU
    try:
        return jax.default_backend() == "gpu" and float(capability) >= 8.0
    except ValueError:
        return False


def compute_dtype(name: str) -> type:
    """The dtype of a name: "float32", "bfloat16", or "auto".

    "auto" is bfloat16 on TPUs and modern GPUs, float32 elsewhere. ConfigError for another name.
    """
    dtypes = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if name == "auto":
        name = "bfloat16" if jax.default_backend() == "tpu" or modern_gpu() else "float32"
    if name not in dtypes:
        raise unknown_name("dtype", name, DTYPES)
    return dtypes[name]


def full_precision(dtype: type) -> contextlib.AbstractContextManager:
    """A context in which matrix products of float32 have full precision; no effect for bfloat16.

    By default accelerators round the factors of a float32 product.
    """
    is_float32 = dtype == jnp.float32
    return jax.default_matmul_precision("highest") if is_float32 else contextlib.nullcontext()
