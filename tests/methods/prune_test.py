"""Prune finds the planted unit, and removes nothing else; the Fisher estimate is unbiased."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib import fisher
from l2l_jax.lib.errors import ConfigError
from l2l_jax.methods import prune as method
from l2l_jax.solvers import remove_units
from tests.methods.linear import batch, linear_model, of_channels

KEY = jax.random.key(2)


class Objectives:
    """The objectives of the method on one batch, as the solver sees them."""

    def __init__(self, model, images, **args):
        self.model, self.images, self.args = model, images, args

    def gradients(self, student, *weights):
        def both(student):
            given = self.model, student, {}, self.images, KEY
            retain, forget, _ = method.objectives(*given, **self.args)
            return jnp.stack([retain, forget])

        values, pullback = jax.vjp(both, student)
        metrics = {"retain": values[0], "forget": values[1]}
        return [pullback(jnp.array(w, jnp.float32))[0] for w in weights], metrics


def loss(model, params, images):
    mask = jnp.zeros((len(images), 4, 4), bool)
    return float(jnp.mean(model.loss(params, model.corrupt(params, images, mask, KEY))))


@pytest.mark.slow
@pytest.mark.parametrize("red", [0, 2])
def test_the_unit_that_only_forget_images_need_is_removed(red):
    """With a gain of 1 the means would be the best completions, and no loss would depend on any."""
    model, params = linear_model(gain=0.5)
    others = [c for c in range(3) if c != red]
    retain, forget = of_channels(*others, seed=1), of_channels(red, seed=2)
    both = Objectives(model, batch(retain, forget, hide=False))
    share = 1 / (4 + 48)  # one of the units of both layers
    gradient, metrics = remove_units.update(both, params, 0, share=share)
    left = jax.tree.map(jnp.subtract, params, gradient)
    assert (left["encoder"]["kernel"][:, red] == 0).all()
    kept = np.delete(np.arange(4), red)
    np.testing.assert_array_equal(
        left["encoder"]["kernel"][:, kept], params["encoder"]["kernel"][:, kept]
    )
    np.testing.assert_array_equal(left["decoder"]["kernel"], params["decoder"]["kernel"])
    assert metrics["removed"] == pytest.approx(share)
    assert metrics["removed_retain"] < 1e-6 < 0.1 < metrics["removed_forget"]
    assert loss(model, left, retain) == pytest.approx(loss(model, params, retain), rel=1e-6)
    assert loss(model, left, forget) > 2 * loss(model, params, forget)


def test_the_bias_of_a_removed_unit_goes_with_it():
    student = {
        "a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
        "norm": {"bias": jnp.ones(3)},
    }
    gone = remove_units.spread(student, jnp.array([False, True, False]))
    np.testing.assert_array_equal(gone["a"]["kernel"], [[0, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(gone["a"]["bias"], [0, 1, 0])
    np.testing.assert_array_equal(gone["norm"]["bias"], 0)
    (score,) = remove_units.scores(student, jax.tree.map(jnp.ones_like, student))
    np.testing.assert_array_equal(score, [3, 3, 3])


@pytest.mark.slow
def test_the_fisher_estimate_is_that_of_single_images():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)

    def losses(params):
        return jnp.square(x @ params["w"])

    params = {"w": jnp.array([1.0, -2.0, 0.5])}
    each = jax.jacrev(losses)(params)["w"]
    found = jax.jit(lambda key: fisher.diagonal(losses, params, key, draws=400))(KEY)["w"]
    np.testing.assert_allclose(found, (each**2).mean(axis=0), rtol=0.25)
    one = fisher.diagonal(lambda p: losses(p)[:1], params, KEY)["w"]
    np.testing.assert_allclose(one, each[0] ** 2, rtol=1e-5)


def test_wrong_arguments_are_refused():
    model, params = linear_model()
    images = batch(of_channels(0), of_channels(1))
    with pytest.raises(ConfigError, match="draws=0"):
        method.objectives(model, params, {}, images, KEY, draws=0)
    with pytest.raises(ConfigError, match=r"share=1\.0"):
        remove_units.update(Objectives(model, images), params, 0, share=1.0)
