"""The gradient of a permutation is that of the gather that it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.models.layers.permute import permuted


@pytest.mark.slow
def test_values_and_gradient_are_those_of_a_gather():
    keys = jax.random.split(jax.random.key(0), 3)
    x, weights = (jax.random.normal(key, (3, 5, 2)) for key in keys[:2])
    order = jnp.argsort(jax.random.uniform(keys[2], (3, 5)), axis=1)

    def gathered(x):
        return jnp.take_along_axis(x, order[..., None], axis=1)

    def loss(place, x):
        return jnp.sum(weights * place(x) ** 2)

    ours = jax.value_and_grad(lambda x: loss(lambda x: permuted(x, order), x))(x)
    theirs = jax.value_and_grad(lambda x: loss(gathered, x))(x)
    assert np.array_equal(permuted(x, order), gathered(x))
    assert ours[0] == theirs[0]
    assert np.array_equal(ours[1], theirs[1])
