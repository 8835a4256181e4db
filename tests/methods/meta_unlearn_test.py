"""Meta-unlearning looks at the forget images after a simulated attack, and holds against it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from l2l_jax.lib.errors import ConfigError
from l2l_jax.methods import max_loss, meta_unlearn
from tests.methods.linear import batch, linear_model, of_channels

KEY = jax.random.key(2)
RETAIN, FORGET = of_channels(0, 1, seed=3), of_channels(2, seed=4)
ATTACK = dict(attack_steps=3, rate=0.1)


def mean_loss(model, params, images):
    rows = batch(images, images, hide=False).forget
    return jnp.mean(model.loss(params, model.corrupt(params, rows.images, rows.mask, KEY)))


def after_attack(model, params, images, steps=3, rate=0.1):
    """The definition: steps along the gradient, each array divided by its root mean square."""
    for _ in range(steps):
        gradient = jax.grad(lambda p: mean_loss(model, p, images))(params)
        params = jax.tree.map(
            lambda x, g: x - rate * g / (jnp.sqrt(jnp.mean(g**2)) + 1e-12), params, gradient
        )
    return params


@pytest.mark.slow
def test_the_forget_objective_is_that_of_the_attacked_model():
    model, params = linear_model()
    student = jax.tree.map(lambda x: 0.7 * x + 0.01, params)
    given = batch(RETAIN, FORGET, hide=False)
    known, measured = FORGET[0::2], FORGET[1::2]

    def forget(student):
        return meta_unlearn.objectives(model, student, params, given, KEY, times=40.0, **ATTACK)[1]

    attacked = after_attack(model, student, known)
    rows = batch(measured, measured, hide=False).forget
    inputs = model.corrupt(params, rows.images, rows.mask, KEY)
    bound = 40 * model.loss(params, inputs)

    def expected(params):
        return jnp.mean(jnp.maximum(bound - model.loss(params, inputs), 0) / bound)

    assert float(forget(student)) == pytest.approx(float(expected(attacked)), rel=1e-5)
    found, wanted = jax.grad(forget)(student), jax.grad(expected)(attacked)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg="first order: at theta_K")


def trained(objectives, steps=400):
    """The planted model after training with L_R + L_F."""
    model, params = linear_model()
    optimizer = optax.adam(2e-3)

    @jax.jit
    def step(student, state):
        def total(student):
            retain, forget, _ = objectives(
                model, student, params, batch(RETAIN, FORGET, hide=False), KEY
            )
            return retain + forget

        updates, state = optimizer.update(jax.grad(total)(student), state)
        return optax.apply_updates(student, updates), state

    student, state = params, optimizer.init(params)
    for _ in range(steps):
        student, state = step(student, state)
    return student


@pytest.mark.slow
def test_what_it_forgot_does_not_come_back_under_the_attack():
    model, params = linear_model()
    known, levels = float(mean_loss(model, params, FORGET)), {}
    attack = dict(attack_steps=3, rate=0.01)

    def meta(*given):
        return meta_unlearn.objectives(*given, times=3.0, **attack)

    def plain(*given):
        retain, forget, metrics = max_loss.objectives(*given, times=3.0, retain="match")
        return retain, forget / known, metrics

    for name, objectives in (("meta", meta), ("plain", plain)):
        student = trained(objectives)
        attacked = after_attack(model, student, FORGET[0::2], rate=0.01)
        found = (mean_loss(model, each, FORGET) for each in (student, attacked))
        levels[name] = tuple(float(level) / known for level in found)
    assert levels["meta"][1] > 2.5, "three times the loss, also after the attack"
    assert levels["plain"][0] > 3, "the same bound without an attack is reached"
    assert levels["plain"][1] < 2, "and comes back"


@pytest.mark.slow
def test_what_cannot_be_stated_is_refused():
    model, params = linear_model()
    with pytest.raises(ConfigError, match="at least 2"):
        meta_unlearn.objectives(model, params, params, batch(RETAIN[:1], FORGET[:1]), KEY)
    with pytest.raises(ConfigError, match="times=0"):
        meta_unlearn.objectives(
            model, params, params, batch(RETAIN, FORGET, hide=False), KEY, times=0.0
        )
    with pytest.raises(ConfigError, match="outputs=0 and latents=0"):
        meta_unlearn.objectives(
            model, params, params, batch(RETAIN, FORGET, hide=False), KEY, outputs=0, latents=0
        )
