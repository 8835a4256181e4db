"""The solvers of second order, uno and conflict_free: gradients are those of what they state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib.errors import ConfigError
from l2l_jax.solvers import conflict_free, uno
from tests.solvers.toys import Given, Quadratics, flat, trees

QUADRATICS, X = Quadratics(), {"x": jnp.array([0.7, -1.2, 0.4])}


def gradients(x):
    return [jax.grad(lambda x, i=i: QUADRATICS.values(x)[i])(x)["x"] for i in (0, 1)]


def cosine(x):
    r, f = gradients(x)
    return r @ f / jnp.sqrt((r @ r) * (f @ f))


# uno ---------------------------------------------------------------------------------------------


def test_a_step_is_the_gradient_of_retain_and_the_squared_cosine():
    def stated(x):
        return QUADRATICS.values(x)[0] + 3.0 * cosine(x) ** 2

    gradient, metrics = uno.update(QUADRATICS, X, 0, weight=3.0, surgery=0)
    np.testing.assert_allclose(gradient["x"], jax.grad(stated)(X)["x"], rtol=1e-4)
    assert metrics["cosine"] == pytest.approx(float(cosine(X)), rel=1e-5)
    assert metrics["loss"] == pytest.approx(float(stated(X)), rel=1e-5)
    plain, _ = uno.update(QUADRATICS, X, 0, weight=0.0, surgery=0)
    np.testing.assert_allclose(plain["x"], gradients(X)[0], rtol=1e-6)


def test_descending_makes_the_gradients_orthogonal():
    def one(x, step):
        gradient, _ = uno.update(QUADRATICS, x, step, weight=100.0, surgery=0)
        return jax.tree.map(lambda a, g: a - 2e-4 * g, x, gradient), None

    start = {"x": jnp.array([1.5, 0.5, -2.0])}
    x, _ = jax.lax.scan(one, start, jnp.arange(1000))
    assert abs(float(cosine(start))) > 0.3
    assert abs(float(cosine(x))) < 0.05


def test_every_second_step_forgets_and_leaves_the_retain_objective():
    retain, forget = trees([2.0, 1.0, 1.0, 0.0], [-1.0, 0.0, 1.0, 1.0])
    for step in (1, 3):
        gradient, _ = uno.update(Given(retain, forget), {"a": X["x"][:2], "b": X["x"][:2]}, step)
        expected = flat(forget) + 1 / 6 * flat(retain)
        np.testing.assert_allclose(flat(gradient), expected, rtol=1e-6)
        assert flat(gradient) @ flat(retain) == pytest.approx(0, abs=1e-6)
    steps = [uno.update(QUADRATICS, X, step, surgery=3)[0]["x"] for step in range(4)]
    assert not np.allclose(steps[2], steps[0])
    np.testing.assert_allclose(steps[3], steps[0])


def test_without_a_direction_there_is_no_penalty():
    class Flat(Quadratics):
        def values(self, student):
            return super().values(student) * jnp.array([0.0, 1.0])

    gradient, metrics = uno.update(Flat(), X, 0, surgery=0)
    np.testing.assert_array_equal(gradient["x"], 0)
    assert metrics["cosine"] == 0
    with pytest.raises(ConfigError, match="weight=-1"):
        uno.update(QUADRATICS, X, 0, weight=-1)


# conflict_free -----------------------------------------------------------------------------------


def test_a_step_is_the_gradient_through_the_look_ahead():
    def stated(x):
        ahead = {"x": x["x"] - 0.1 * jax.grad(lambda x: QUADRATICS.values(x)[1])(x)["x"]}
        return QUADRATICS.values(ahead)[0] + 0.5 * QUADRATICS.values(x)[1]

    gradient, metrics = conflict_free.update(QUADRATICS, X, 0, alpha=0.5, rate=0.1)
    np.testing.assert_allclose(gradient["x"], jax.grad(stated)(X)["x"], rtol=1e-4)
    assert metrics["loss"] == pytest.approx(float(stated(X)), rel=1e-5)
    assert metrics["retain"] == pytest.approx(float(QUADRATICS.values(X)[0]), rel=1e-6)
    first, _ = conflict_free.update(QUADRATICS, X, 0, alpha=0.5, rate=0.1, exact=False)
    r, f = gradients({"x": X["x"] - 0.1 * gradients(X)[1]})[0], gradients(X)[1]
    np.testing.assert_allclose(first["x"], r + 0.5 * f, rtol=1e-4)


def test_the_look_ahead_rewards_gradients_that_agree():
    """Its extra term is minus rate <g_R, g_F> to first order."""
    rate = 1e-3
    plain, with_it = (
        conflict_free.update(QUADRATICS, X, 0, alpha=0.0, rate=each)[0]["x"] for each in (0.0, rate)
    )
    np.testing.assert_allclose(plain, gradients(X)[0], rtol=1e-6)
    agreement = jax.grad(lambda x: jnp.vdot(*gradients(x)))(X)["x"]
    np.testing.assert_allclose((plain - with_it) / rate, agreement, rtol=0.02, atol=0.02)
    with pytest.raises(ConfigError, match="rate=-1"):
        conflict_free.update(QUADRATICS, X, 0, rate=-1)
