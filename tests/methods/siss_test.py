"""SISS: one sample for both sides, weighed so that the means stay those of two separate samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.objectives import training_loss
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.methods import siss
from l2l_jax.types import Batch, ImageToImage, NoisyModel, UnlearnBatch
from tests.helpers import images, small_config

KEY = jax.random.key(4)
STUDENT = {"encoder": jnp.float32(0.7), "decoder": jnp.float32(0.8)}


class Inputs(NamedTuple):
    noisy: jax.Array
    epsilon: jax.Array
    hidden: jax.Array
    sigma: jax.Array


class Noisy(NoisyModel):
    """The smallest diffusion model: it predicts noise linearly from hole and visible pixels."""

    image_size, grid, takes_tokens = 2, (2, 2), False

    def __init__(self, low=0.5, high=0.9):
        self.low, self.high = low, high  # of sigma

    def corrupt(self, params, images, mask, rng, targets=None, visible=None):
        level, noise = jax.random.split(rng)
        rows = (len(images), 1, 1, 1)
        sigma = jax.random.uniform(level, rows, minval=self.low, maxval=self.high)
        epsilon, hidden = jax.random.normal(noise, images.shape), mask[..., None]
        noisy = jnp.sqrt(1 - sigma**2) * images + sigma * epsilon
        return Inputs(jnp.where(hidden, noisy, images), epsilon, hidden, sigma)

    def seen_as(self, inputs, noisy):
        noisy = jnp.where(inputs.hidden, noisy, inputs.noisy)
        epsilon = inputs.epsilon + (noisy - inputs.noisy) / inputs.sigma
        return inputs._replace(noisy=noisy, epsilon=epsilon)

    def energy(self, inputs):
        return jnp.sum(jnp.where(inputs.hidden, inputs.epsilon, 0) ** 2, axis=(1, 2, 3)) / 2

    def loss(self, params, inputs):
        seen = jnp.where(inputs.hidden, 0, inputs.noisy).mean((1, 2, 3), keepdims=True)
        found = params["encoder"] * inputs.noisy + params["decoder"] * seen
        return jnp.mean(jnp.where(inputs.hidden, found - inputs.epsilon, 0) ** 2, axis=(1, 2, 3))


class Plain(ImageToImage):
    """A model whose T adds no noise."""

    def corrupt(self, params, images, mask, rng, targets=None, visible=None):
        return jnp.where(mask[..., None], 0, images), images

    def loss(self, params, inputs):
        made = params["decoder"] * (params["encoder"] * inputs[0])
        return jnp.mean((made - inputs[1]) ** 2, axis=(1, 2, 3))

    def training_loss(self, params, inputs):
        return jnp.mean(self.loss(params, inputs)) + 1, {"more": jnp.float32(1)}


def batch(count=8):
    """Two sides that differ where they are visible, and less where they are hidden."""
    masks = jax.random.bernoulli(KEY, 0.5, (2, count, 2, 2))
    masks = masks.at[..., 0, 0].set(True).at[..., 1, 1].set(False)
    keep = images(count, 2, 1)
    drop = 0.6 * keep + 0.1 * images(count, 2, 2) + jnp.array([0.3, 0.1, 0.0])
    drop = jnp.where(masks[0][..., None], drop, 2 * drop)
    return UnlearnBatch(Batch(keep, masks[0]), Batch(drop, masks[1]))


def run(given, lam, key=KEY, model=None, student=STUDENT):
    return siss.objectives(model or Noisy(), student, {}, given, key, lam=lam)


def separately(given, key):
    """Both losses as they are without a common sample: [retain, minus forget]."""
    keep, drop = jax.random.split(key)
    pair = ((given.retain.images, keep, 1), (given.forget.images, drop, -1))
    means = []
    for shown, key, sign in pair:
        inputs = Noisy().corrupt(STUDENT, shown, given.retain.mask, key)
        means.append(sign * jnp.mean(Noisy().loss(STUDENT, inputs)))
    return jnp.stack(means)


def mean_and_error(function, draws=4000):
    """Mean of the function of a key over so many keys, and the standard error of that mean."""
    values = np.asarray(jax.jit(jax.vmap(function))(jax.random.split(KEY, draws)))
    return values.mean(0), values.std(0) / np.sqrt(draws)


@pytest.mark.slow
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.5, 1.0])
def test_the_means_are_those_of_two_separate_samples(lam):
    given = batch()

    def together(key):
        retain, forget, found = run(given, lam, key)
        return jnp.stack([retain, forget, found["weight_retain"], found["weight_forget"]])

    found, error = mean_and_error(together)
    plain, plain_error = mean_and_error(lambda key: separately(given, key))
    assert abs(plain[0] + plain[1]) > 20 * max(plain_error), "the two sides are not alike"
    assert (error < 0.02 * np.abs(found)).all(), "else the test sees nothing"
    both = np.sqrt(error[:2] ** 2 + plain_error**2)
    assert (np.abs(found[:2] - plain) < 4 * both).all(), (found[:2], plain, both)
    assert (np.abs(found[2:] - 1) <= 4 * error[2:] + 1e-5).all(), "and weights are 1 in the mean"


def test_weights_are_bounded_and_share_out_each_sample():
    d_r, d_f = jnp.meshgrid(jnp.linspace(0, 200, 21), jnp.linspace(0, 200, 21))
    for lam in (0.0, 0.3, 0.5, 1.0):
        w_r, w_f = (np.asarray(w) for w in siss.weights(d_r, d_f, lam))
        assert (w_r >= 0).all()
        assert (w_f >= 0).all()
        if 0 < lam < 1:
            np.testing.assert_allclose((1 - lam) * w_r + lam * w_f, 1, rtol=1e-5)
            np.testing.assert_allclose(w_r.max(), 1 / (1 - lam), rtol=1e-5)
            np.testing.assert_allclose(w_f.max(), 1 / lam, rtol=1e-5)
    near = np.abs(d_r - d_f) <= 60
    for lam in (0.0, 0.3, 0.5, 1.0):  # the formulas as they are printed
        w_r, w_f = (np.asarray(w)[near] for w in siss.weights(d_r, d_f, lam))
        ratio = np.exp(np.float64((d_r - d_f)[near]))
        np.testing.assert_allclose(w_r, 1 / ((1 - lam) + lam * ratio), rtol=1e-4)
        np.testing.assert_allclose(w_f, 1 / ((1 - lam) / ratio + lam), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.5, 1.0])
def test_an_image_that_is_on_both_sides_weighs_one_on_both(lam):
    given = batch()
    given = given.replace(forget=given.forget.replace(images=given.retain.images))
    retain, forget, found = run(given, lam)
    assert found["weight_retain"] == pytest.approx(1, abs=1e-6)
    assert found["weight_forget"] == pytest.approx(1, abs=1e-6)
    assert retain == pytest.approx(-float(forget), rel=1e-6), "and is neither learned nor forgotten"


@pytest.mark.slow
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_no_gradient_crosses_to_the_other_side(lam):
    given = batch()

    def both(keep, drop):
        sides = given.retain.replace(images=keep), given.forget.replace(images=drop)
        return jnp.stack(run(UnlearnBatch(*sides), lam)[:2])

    pair = given.retain.images, given.forget.images
    of_keep, of_drop = jax.jit(jax.jacrev(both, argnums=(0, 1)))(*pair)
    assert of_keep[0].any()
    assert of_drop[1].any()
    assert not of_drop[0].any(), "the retain objective looks at retain images only"
    assert not of_keep[1].any(), "the forget objective at forget images only"
    to_student = jax.jacrev(lambda student: jnp.stack(run(given, lam, student=student)[:2]))
    slopes = jax.jit(to_student)(STUDENT)
    assert all(slope.all() for slope in slopes.values()), "both train the network"


@pytest.mark.slow
def test_both_sides_have_the_mask_of_the_retain_half():
    given = batch()
    other = given.replace(forget=given.forget.replace(mask=~given.forget.mask))
    assert run(given, 0.5)[:2] == run(other, 0.5)[:2]
    other = given.replace(retain=given.retain.replace(mask=given.forget.mask))
    assert run(given, 0.5)[1] != run(other, 0.5)[1]


@pytest.mark.slow
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.5, 1.0])
def test_images_that_never_look_alike_stay_finite(lam):
    """Next to no noise: distances of 1e9, and each row belongs to the side it was drawn from."""
    given, still = batch(1000), Noisy(1e-5, 1.1e-5)

    def both(student, keep, drop):
        sides = given.retain.replace(images=keep), given.forget.replace(images=drop)
        retain, forget, found = run(UnlearnBatch(*sides), lam, KEY, still, student)
        return jnp.stack([retain, forget]), found

    arguments = STUDENT, given.retain.images, given.forget.images
    values, found = jax.jit(both)(*arguments)
    slopes, _ = jax.jit(jax.jacrev(both, argnums=(0, 1, 2), has_aux=True))(*arguments)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((values, slopes)))
    w_r, w_f = float(found["weight_retain"]), float(found["weight_forget"])
    assert w_r == pytest.approx(1.0 if lam < 1 else 0.0, abs=0.12)
    assert w_f == pytest.approx(1.0 if lam > 0 else 0.0, abs=0.12)
    assert (1 - lam) * w_r + lam * w_f == pytest.approx(1, rel=1e-5)
    assert 0 < lam < 1 or {w_r, w_f} == {0.0, 1.0}
    for far in (1e9, 1e38) if 0 < lam < 1 else ():
        near, there = jnp.float32(0), jnp.float32(far)
        assert siss.weights(near, there, lam) == (pytest.approx(1 / (1 - lam)), 0)
        assert siss.weights(there, near, lam) == (0, pytest.approx(1 / lam))


def test_a_model_without_noise_has_its_own_loss_and_minus_that():
    given, plain = batch(), Plain()
    retain, forget, found = run(given, 0.5, model=plain)
    inputs = plain.corrupt({}, given.forget.images, given.forget.mask, KEY)
    assert (retain, found) == training_loss(plain, STUDENT, given.retain, KEY), "with all its terms"
    assert forget == -jnp.mean(plain.loss(STUDENT, inputs))
    assert run(given, 0.1, model=plain)[:2] == (retain, forget)


@pytest.mark.parametrize("lam", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(lam):
    for model in (Noisy(), Plain()):
        with pytest.raises(ConfigError, match=r"siss: lam=.* is no share"):
            run(batch(), lam, model=model)


def test_its_recipe_has_a_solver_of_its_own():
    config = small_config(unlearn=common.phase("l2l", solver_args=dict(alpha=0.25)))
    common.use_method(config, "siss")
    assert config.phases == ("pretrain", "unlearn")
    phase = complete_config(config)["unlearn"]
    assert (phase["method"], phase["args"]) == ("siss", {"lam": 0.5})
    assert (phase["solver"], phase["solver_args"]) == ("normalized", {"share": 0.1, "norm": 0.0})


@pytest.mark.slow
def test_another_solver_than_the_one_it_is_meant_for_is_said(tmp_path, caplog):
    config = small_config()
    config.unlearn.update(dict(method="siss", solver="normalized"))
    preflight(resolve(config), tmp_path / "a", StopSignal())
    assert "is meant for" not in caplog.text
    config.unlearn.solver = "weighted"
    preflight(resolve(config), tmp_path / "b", StopSignal())
    assert "unlearn: siss is meant for the solver normalized" in caplog.text
