"""Selective Amnesia: the elastic term holds what retain images need, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib.errors import ConfigError
from l2l_jax.methods import selective_amnesia
from tests.methods.linear import batch, linear_model, of_channels

KEY = jax.random.key(6)


def retain_objective(model, student, teacher, images, **args):
    found = selective_amnesia.objectives(model, student, teacher, images, KEY, **args)
    return found[0], found[2]


@pytest.mark.slow
@pytest.mark.parametrize("lam", [1.0, 7.0])
def test_the_elastic_term_is_that_of_the_equation(lam):
    """Of one image the estimate is exact: F = (dl)^2, and n is the number of its values."""
    model, teacher = linear_model()
    images = batch(of_channels(0, 1, 2, count=1), of_channels(0, count=1))
    student = jax.tree.map(lambda x: x + 0.1, teacher)
    inputs = model.corrupt(teacher, images.retain.images, images.retain.mask, KEY)
    gradient = jax.grad(lambda params: jnp.sum(model.loss(params, inputs)))(teacher)
    squares = sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient))
    _, metrics = retain_objective(model, student, teacher, images, lam=lam)
    counted = 16 * 16 * 3
    assert float(metrics["elastic"]) == pytest.approx(lam * counted / 2 * squares * 0.01, rel=1e-4)


@pytest.mark.slow
def test_units_that_no_retain_image_needs_move_freely():
    """Retain images are green and blue: the elastic term does not feel the unit of red."""
    model, teacher = linear_model()
    images = batch(of_channels(1, 2, seed=1), of_channels(0, seed=2), hide=False)
    terms = []
    for channel in range(3):
        kernel = teacher["encoder"]["kernel"].at[channel::3, channel].add(0.1)
        student = teacher | {"encoder": teacher["encoder"] | {"kernel": kernel}}
        terms.append(float(retain_objective(model, student, teacher, images)[1]["elastic"]))
    assert terms[0] == 0
    assert min(terms[1:]) > 0


def test_replay_and_the_surrogate():
    model, teacher = linear_model()
    images = batch(of_channels(0, 1, 2), of_channels(0, 1), hide=False)
    grey = jax.tree.map(jnp.zeros_like, teacher)
    grey["decoder"]["bias"] = jnp.full_like(grey["decoder"]["bias"], 0.5)
    _, forget, _ = selective_amnesia.objectives(model, grey, teacher, images, KEY)
    assert float(forget) == pytest.approx(1 / 12, rel=0.03), "the variance of U(0, 1)"
    once, twice = (
        float(retain_objective(model, teacher, teacher, images, gamma=gamma)[0])
        for gamma in (1.0, 2.0)
    )
    assert twice == pytest.approx(2 * once, rel=1e-6)
    assert np.isfinite(once)
    with pytest.raises(ConfigError, match="lam=-1"):
        retain_objective(model, teacher, teacher, images, lam=-1)
