"""Group normalisation against that of Flax: values and all gradients, and for each image alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from l2l_jax.models.layers.group_norm import GroupNorm


@pytest.mark.slow
@pytest.mark.parametrize("width", [4, 12])  # one channel in a group, and three
def test_values_and_gradients_are_those_of_flax(width):
    made = [
        kind(width, 4, epsilon=1e-5, use_fast_variance=False, rngs=nnx.Rngs(0))
        for kind in (nnx.GroupNorm, GroupNorm)
    ]
    keys = jax.random.split(jax.random.key(0), 4)
    params = [jax.random.normal(key, (width,)) for key in keys[:2]]
    x = 3 + jax.random.normal(keys[2], (2, 5, 6, width))
    weights = jax.random.normal(keys[3], x.shape)

    def loss(module, x, scale, bias):
        graph, state = nnx.split(module)
        state.scale, state.bias = nnx.Param(scale), nnx.Param(bias)
        return jnp.sum(weights * jnp.tanh(nnx.merge(graph, state)(x)))

    results = [
        jax.value_and_grad(lambda *args, each=each: loss(each, *args), (0, 1, 2))(x, *params)
        for each in made
    ]
    for ours, theirs in zip(*map(jax.tree.leaves, reversed(results)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_statistics_are_float32_and_the_result_has_the_dtype():
    norm = GroupNorm(4, 2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = (1000 + jax.random.normal(jax.random.key(0), (1, 8, 8, 4))).astype(jnp.bfloat16)
    made = norm(x)
    assert made.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64).reshape(64, 2, 2)
    spread = exact.std(axis=(0, 2), keepdims=True)
    expected = ((exact - exact.mean(axis=(0, 2), keepdims=True)) / spread).reshape(1, 8, 8, 4)
    np.testing.assert_allclose(np.asarray(made, np.float64), expected, atol=0.02)
