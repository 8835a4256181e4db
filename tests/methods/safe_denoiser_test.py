"""Safe Denoiser stores one batch, changes no weight, and pushes samples from what is stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib import optim
from l2l_jax.lib.errors import ConfigError
from l2l_jax.methods import safe_denoiser
from l2l_jax.models.layers import negation
from l2l_jax.registry import find, find_format
from l2l_jax.report import verdict
from l2l_jax.types import Batch, UnlearnBatch
from l2l_jax.weights import convert
from l2l_jax.weights.safetensors import Weights
from tests.helpers import images, small_model

KEY = jax.random.key(1)


def stored_model(count=4):
    """(a diffusion model that stores that many images, its parameters: zeros, nothing stored)."""
    model = small_model("diffusion", negation=count)
    return model, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), model.template)


@pytest.mark.slow
def test_one_step_stores_the_batch_and_changes_nothing_else():
    model, params = stored_model()
    forget = images(4, model.image_size, 3)
    given = UnlearnBatch(None, Batch(forget, jnp.zeros((4, *model.grid), bool)))

    def value(student):
        return safe_denoiser.objectives(model, params | student, {}, given, KEY)[1]

    student = {group: params[group] for group in safe_denoiser.TRAINABLE}
    tx, _ = optim.make_optimizer(steps=1, lr=1.0, name="sgd", warmup=0.0, weight_decay=0.0)
    updates, _ = tx.update(jax.grad(value)(student), tx.init(student), student)
    stored = jax.tree.map(jnp.add, student, updates)["negation"]
    np.testing.assert_allclose(stored["images"], forget, rtol=1e-6)
    np.testing.assert_array_equal(stored["weight"], 1)
    assert safe_denoiser.TRAINABLE == ("negation",)
    with pytest.raises(ConfigError, match="4 images is stored in the place of 3"):
        safe_denoiser.objectives(*stored_model(3), {}, given, KEY)


@pytest.mark.parametrize("name", ["mae", "diffusion"])
def test_models_that_store_nothing_are_refused(name):
    assert "only a diffusion model" in safe_denoiser.refuses(small_model(name))


def toy(a, weight=(1.0,)):
    """(negation of images of one value each, its parameters, the hole)."""
    pictures = jnp.stack([jnp.full((2, 2, 3), (value + 1) / 2) for value in a])
    params = {"negation": {"images": pictures, "weight": jnp.array(weight)}}
    return negation.Negation(len(a), 0.5, 0.25), params, jnp.ones((1, 2, 2, 1), bool)


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [0.04, 0.5, 0.9])
def test_a_sample_near_a_stored_image_is_pushed_away_from_it(gamma):
    """The model expects 0.3 everywhere, 0.1 is stored: beta = 0.5 exp(-0.2^2 / (2 0.25^2))."""
    planned, params, hidden = toy([0.1])
    noisy, g = jnp.full((1, 2, 2, 3), 0.2), jnp.float32(gamma)

    def image_of(noise):
        return (noisy - jnp.sqrt(1 - g) * noise) / jnp.sqrt(g)

    def predict(noisy, gamma):
        return (noisy - jnp.sqrt(gamma) * 0.3) / jnp.sqrt(1 - gamma)

    safe = planned.steered(predict, params, hidden)(noisy, g)
    beta = 0.5 * np.exp(-(0.2**2) / (2 * 0.25**2))
    np.testing.assert_allclose(image_of(safe), 0.3 + beta * 0.2, rtol=1e-4)
    empty = {"negation": params["negation"] | {"weight": jnp.zeros(1)}}
    unsteered = planned.steered(predict, empty, hidden)(noisy, g)
    np.testing.assert_allclose(unsteered, predict(noisy, g), rtol=1e-4, atol=1e-5)
    assert negation.Negation(0).steered(predict, {}, hidden) is predict


def test_the_expected_stored_image_is_that_of_the_posterior():
    """Of 12 pixels of 0.2 with noise of variance 1/2 on sqrt(1/2) a."""
    _, params, hidden = toy([0.1, 0.8, 0.5], (1.0, 1.0, 0.0))
    noisy, scale = jnp.full((1, 2, 2, 3), 0.2), jnp.sqrt(jnp.float32(0.5))
    stored, weight = params["negation"]["images"] * 2 - 1, params["negation"]["weight"]
    found = negation.unsafe(noisy, stored, weight, hidden, scale, scale)
    odds = np.exp([-12 * (0.2 - np.sqrt(0.5) * a) ** 2 for a in (0.1, 0.8)])
    np.testing.assert_allclose(found, odds @ [0.1, 0.8] / odds.sum(), rtol=1e-4)


def test_weights_of_a_file_begin_with_nothing_stored():
    model, params = stored_model()
    plain = {group: tree for group, tree in params.items() if group != "negation"}
    whole = find_format("diffusion").adapt(jax.device_get(plain), model)
    assert whole["negation"]["weight"].tolist() == [0.0] * 4
    full = params | {"negation": jax.tree.map(lambda x: x + 1, params["negation"])}
    kept = find_format("diffusion").adapt(jax.device_get(full), model)
    assert kept["negation"]["weight"].tolist() == [1.0] * 4


def test_no_official_file_can_hold_stored_images(tmp_path):
    _, params = stored_model()
    about = {"model": "diffusion", "args": find("model", "diffusion").SMALLEST | {"negation": 4}}
    weights = Weights(jax.device_get(params), about)
    with pytest.raises(ConfigError, match="has no place for them"):
        convert.export_file(weights, tmp_path / "model.pth")
    convert.export_file(weights, tmp_path / "model.safetensors")


def test_audits_say_that_the_weights_are_unchanged():
    place = {"value": 0.0, "interval": (-0.05, 0.05)}
    audit = {"attack": True, "rows": [{"place": place, "gap": 1.0, "floor": 0.0}], "sentence": ""}
    before, after = (
        verdict.verdict({"relearn": audit | more}) for more in ({}, {"unchanged": True})
    )
    assert before.kind == ""
    assert after.kind == "bad"
    assert after.titles[0].startswith("The weights are those of the original")
    assert after.titles[1:] == before.titles
