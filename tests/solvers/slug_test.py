"""The solver slug finds the planted layer, and the longest step that retaining allows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib.errors import ConfigError
from l2l_jax.solvers import slug


class Layers:
    """Four arrays. `retain` reads a, and b with the factor `cost`; `forget` pulls at all of them.

    In b the two gradients are orthogonal, in a parallel; c is no kernel, and d pulls less.
    """

    def __init__(self, cost=0.0):
        self.cost = cost

    def values(self, x):
        one = jnp.sum(x["a"]["kernel"]) ** 2 + self.cost * jnp.sum((x["b"]["kernel"] - 1) ** 2)
        pulls = {"a": 3.0, "b": 2.0, "embed": 9.0, "d": 1.0}
        two = sum(pull * jnp.sum(x[name]["kernel"]) for name, pull in pulls.items())
        return jnp.stack([1.0 + one, two + 9.0 * jnp.sum(x["b"]["bias"])])

    def gradients(self, student, *weights):
        values, pullback = jax.vjp(self.values, student)
        metrics = {"retain": values[0], "forget": values[1]}
        return [pullback(jnp.array(w, jnp.float32))[0] for w in weights], metrics


def start():
    """All kernels have the same norm, 2."""
    ones = {name: {"kernel": jnp.ones((2, 2))} for name in ("a", "b", "d", "embed")}
    ones["a"]["kernel"] = jnp.array([[1.0, -1.0], [1.0, 1.0]])
    ones["b"]["bias"] = jnp.ones(2)
    return ones


@pytest.mark.slow
def test_only_the_planted_layer_moves_as_far_as_it_is_long():
    gradient, metrics = slug.update(Layers(), start(), 0)
    np.testing.assert_allclose(gradient["b"]["kernel"], np.ones((2, 2)), rtol=1e-6)
    still = [gradient[name] for name in ("a", "d", "embed")] + [gradient["b"]["bias"]]
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(still))
    assert metrics["importance"] == pytest.approx(2.0)
    assert metrics["alignment"] == 0
    assert metrics["layer"] == 2


def test_the_step_is_the_longest_that_the_retain_objective_allows():
    """retain = 5 + 3 * 4 (2 lam)^2 may rise by a tenth: lam = sqrt(0.5 / 48)."""
    _, metrics = slug.update(Layers(cost=3.0), start(), 0, trials=30)
    assert metrics["retain"] == pytest.approx(5.0)
    assert metrics["lam"] == pytest.approx(np.sqrt(0.5 / 48), rel=1e-4)
    _, none = slug.update(Layers(cost=3.0), start(), 0, tolerance=0.0, trials=30)
    assert none["lam"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("args", [dict(tolerance=-1.0), dict(longest=0.0)])
def test_wrong_arguments_are_refused(args):
    with pytest.raises(ConfigError, match="how far the one step goes"):
        slug.update(Layers(), start(), 0, **args)
