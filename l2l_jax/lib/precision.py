"""Which number type the computation runs in. Parameters, losses and metrics are float32 always."""

import jax
import jax.numpy as jnp

from l2l_jax.lib.errors import unknown


def compute_dtype(name: str) -> type:
    """'float32', 'bfloat16', or 'auto': bfloat16 on GPU and TPU, float32 on CPU."""
    dtypes = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if name not in dtypes:
        raise unknown("dtype", name, ["auto", *dtypes])
    return dtypes[name]
