"""The solver bilevel where the step is known, and the target of the method erasediff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib.errors import ConfigError
from l2l_jax.methods import erasediff
from l2l_jax.solvers import bilevel, epsilon
from l2l_jax.types import Batch, UnlearnBatch
from tests.helpers import images, small_model
from tests.solvers.toys import Given, Quadratics, descend, flat, trees

X = {"x": jnp.array([0.7, -1.2, 0.4])}


def test_forgetting_falls_at_the_stated_rate_and_no_faster_than_needed():
    retain, forget = trees([2.0, 1.0, 1.0, 0.0], [-1.0, 0.0, 1.0, 1.0])
    gradient, metrics = bilevel.update(Given(retain, forget), {}, 0, eta=0.1)
    assert metrics["lam"] == pytest.approx((0.1 * 3 + 1) / 3)
    assert flat(gradient) @ flat(forget) == pytest.approx(0.1 * 3, rel=1e-5)
    agreeing, _ = trees([-2.0, 0.0, 1.0, 1.0], [0.0] * 4)
    gradient, metrics = bilevel.update(Given(agreeing, forget), {}, 0, eta=0.1)
    assert metrics["lam"] == 0
    np.testing.assert_array_equal(flat(gradient), flat(agreeing))


def test_with_the_barrier_of_the_norm_it_is_the_first_phase_of_epsilon():
    own, _ = bilevel.update(Quadratics(), X, 0, eta=0.3)
    other, _ = epsilon.update(Quadratics(), X, 0, goal="full_forgetting", scale=0.3)
    np.testing.assert_allclose(own["x"], other["x"], rtol=1e-6)


def test_the_gap_is_what_the_inner_steps_gain():
    toy, steps, rate = Quadratics(), 3, 0.02
    x = X
    for _ in range(steps):
        (step,), _ = toy.gradients(x, (0.0, 1.0))
        x = jax.tree.map(lambda a, g: a - rate * g, x, step)
    gained = float(toy.values(X)[1] - toy.values(x)[1])
    _, metrics = bilevel.update(
        toy, X, 0, barrier="gap", eta=0.1, inner_steps=steps, inner_rate=rate
    )
    assert metrics["gap"] == pytest.approx(gained, rel=1e-4)
    (r, f), _ = toy.gradients(X, (1.0, 0.0), (0.0, 1.0))
    wanted = (0.1 * gained - r["x"] @ f["x"]) / (f["x"] @ f["x"])
    assert metrics["lam"] == pytest.approx(max(float(wanted), 0.0), rel=1e-4)


def test_it_ends_where_the_lower_problem_is_solved():
    """The lower problem has one solution, B; the upper problem cannot move it."""
    end = descend(bilevel, (2.0, 2.0), eta=1.0)
    np.testing.assert_allclose(end, [0.0, 1.0], atol=0.03)


@pytest.mark.parametrize("args", [dict(eta=-1.0), dict(barrier="gab"), dict(inner_rate=0.0)])
def test_wrong_arguments_are_refused(args):
    with pytest.raises(ConfigError):
        bilevel.update(Quadratics(), X, 0, **args)


def shown(model, count=4):
    h, w = model.grid
    mask = jnp.zeros((count, h, w), bool).at[:, : h // 2].set(True)
    return UnlearnBatch(*(Batch(images(count, model.image_size, k), mask) for k in (1, 2)))


@pytest.mark.slow
def test_a_network_that_returns_uniform_noise_has_forgotten(monkeypatch):
    """The best constant output of a diffusion model is 1/2, with the error of U(0, 1): 1/12."""
    model = small_model("diffusion")
    params, batch = model.template, shown(model, 16)
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params)

    def loss(value):
        made = lambda self, params, latents, inputs: jnp.full_like(inputs.noisy, value)  # noqa: E731
        monkeypatch.setattr(type(model), "decode", made)
        monkeypatch.setattr(type(model), "encode", lambda self, params, inputs: inputs.noisy)
        return float(erasediff.objectives(model, params, {}, batch, jax.random.key(0))[1])

    assert loss(0.5) == pytest.approx(1 / 12, rel=0.03)
    assert loss(0.0) == pytest.approx(1 / 3, rel=0.03)


def test_other_models_learn_an_image_of_uniform_noise(monkeypatch):
    """The loss of a constant completion 1/2 is the variance of U(0, 1)."""
    model = small_model("autoencoder")
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), model.template)
    monkeypatch.setattr(
        type(model), "predict", lambda self, params, inputs: jnp.full_like(inputs.target, 0.5)
    )
    _, forget, _ = erasediff.objectives(model, params, {}, shown(model, 64), jax.random.key(0))
    assert float(forget) == pytest.approx(1 / 12, rel=0.02)
