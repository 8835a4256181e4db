"""ReTrack redirects to planted neighbours; adversarial ascent finds the planted direction."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib import pixels
from l2l_jax.lib.errors import ConfigError
from l2l_jax.methods import adversarial_ascent, retrack
from l2l_jax.types import Batch, UnlearnBatch
from tests.helpers import images, small_model
from tests.methods.linear import batch, linear_model, of_channels

KEY = jax.random.key(4)

# retrack -----------------------------------------------------------------------------------------


def with_neighbors(forget, retain):
    """The retain images, of which row (i + 3) % B is near to forget image i."""
    return jnp.roll(forget + 0.01 * (retain - 0.5), 3, axis=0).clip(0, 1)


@pytest.mark.slow
def test_the_target_is_the_completion_of_the_planted_neighbour():
    """A unit of the original is broken, so that h0 differs from the images and from h."""
    model, student = linear_model()
    forget = of_channels(0, 1, 2, seed=1)
    retain = with_neighbors(forget, of_channels(0, 1, 2, seed=2))
    teacher = jax.tree.map(lambda x: 0.5 * x, student)
    _, loss, _ = retrack.objectives(model, student, teacher, batch(retain, forget), KEY)

    def completed(params, shown):
        inputs = model.corrupt(params, shown, batch(shown, shown).forget.mask, KEY)
        return model.decode(params, model.encode(params, inputs), inputs)

    near = jnp.roll(retain, -3, axis=0)
    expected = jnp.mean((completed(student, forget) - completed(teacher, near)) ** 2)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    tokens = jnp.arange(48).reshape(3, 4, 4)
    found = retrack.nearest(tokens, jnp.stack([tokens[2], tokens[0], tokens[1].at[0, 0].set(0)]))
    assert found.tolist() == [1, 2, 0]


@pytest.mark.slow
def test_the_noise_is_explained_by_the_planted_neighbour(monkeypatch):
    model, seen = small_model("diffusion"), []
    mask = jnp.zeros((4, *model.grid), bool).at[:, :2].set(True)
    forget = images(4, model.image_size, 1)
    retain = with_neighbors(forget, images(4, model.image_size, 2))
    monkeypatch.setattr(
        type(model), "loss", lambda self, params, inputs: seen.append(inputs) or jnp.zeros(4)
    )
    given = Batch(forget, mask)
    retrack.redirected(model, {}, given, retain, KEY, k=1)
    (inputs,) = seen
    own = model.corrupt({}, forget, mask, KEY)
    np.testing.assert_array_equal(inputs.noisy, own.noisy)
    hidden = np.asarray(pixels.hidden_pixels(mask, model.image_size))
    np.testing.assert_array_equal(
        np.where(hidden, 0, inputs.condition), np.where(hidden, 0, own.condition)
    )
    near, g = np.roll(retain, -3, axis=0), np.asarray(own.gamma)[:, None, None, None]
    expected = (own.noisy - np.sqrt(g) * (2 * near - 1)) / np.sqrt(1 - g)
    np.testing.assert_allclose(
        np.where(hidden, inputs.epsilon, 0), np.where(hidden, expected, 0), rtol=1e-3, atol=1e-3
    )
    seen.clear()  # where all noise levels are high, all neighbours are alike
    noisiest = dataclasses.replace(own, gamma=jnp.full(4, 1e-6))
    energies = jnp.stack([model.energy(noisiest)] * 4, axis=1)
    np.testing.assert_allclose(retrack.weights(energies, 4), 0.25, rtol=1e-6)


def test_weights_are_those_of_the_k_nearest():
    energies = jnp.array([[1.0, 0.0, 5.0, 2.0]])
    expected = np.exp([-1.0, 0.0, -np.inf, -2.0])
    np.testing.assert_allclose(
        retrack.weights(energies, 3)[0], expected / expected.sum(), rtol=1e-6
    )
    np.testing.assert_array_equal(retrack.weights(energies, 1)[0], [0, 1, 0, 0])
    assert retrack.weights(energies + 1e5, 9).sum() == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="k=0"):
        retrack.objectives(*linear_model(), {}, UnlearnBatch(None, None), KEY, k=0)


# adversarial_ascent ------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_attack_finds_the_corner_that_moves_the_output_most():
    """h copies the mean of each channel of a patch: the best d is +-radius in a whole patch.

    The squared output moves by radius^2 in every visible patch, which half of them are.
    """
    model, params = linear_model()
    grey = jnp.full((4, 16, 16, 3), 0.5)
    args = dict(radius=0.125, attack_steps=4)
    found = adversarial_ascent.objectives(model, params, params, batch(grey, grey), KEY, **args)
    assert float(found[2]["attacked"]) == pytest.approx(0.125**2 / 2, rel=1e-5)
    assert float(found[2]["kept"]) == 0


def test_ascent_and_what_is_kept():
    model, params = linear_model()
    forget = of_channels(0, 1, seed=3, count=4)
    given = batch(forget, forget)
    inputs = model.corrupt(params, forget, given.forget.mask, KEY)
    own = float(jnp.mean(model.loss(params, inputs)))
    retain, value, _ = adversarial_ascent.objectives(model, params, params, given, KEY)
    assert (float(retain), float(value)) == (0.0, pytest.approx(-own, rel=1e-5))
    other = jax.tree.map(lambda x: 1.5 * x, params)
    plain, weighted = (
        adversarial_ascent.objectives(model, other, params, given, KEY, weight=weight)
        for weight in (0.0, 3.0)
    )
    assert float(weighted[1] - plain[1]) == pytest.approx(3 * float(weighted[2]["kept"]), rel=1e-3)
    assert float(weighted[2]["kept"]) > 0
    with pytest.raises(ConfigError, match="radius=0"):
        adversarial_ascent.objectives(model, params, params, given, KEY, radius=0)


def test_tokens_cannot_be_attacked():
    assert "tokens have no gradient" in adversarial_ascent.refuses(small_model("mage"))
    assert adversarial_ascent.refuses(small_model("mae")) == ""
