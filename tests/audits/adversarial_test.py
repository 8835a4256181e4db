"""The attack on visible pixels lowers the loss, and touches nothing else."""

import jax
import numpy as np
import pytest

from l2l_jax.audits import adversarial
from l2l_jax.lib import per_image, pixels
from l2l_jax.registry import find
from l2l_jax.types import Batch
from tests.audits import fakes
from tests.helpers import images, small_model

HOW = dict(steps=10, size=8 / 255, step_size=2 / 255)


def batch_of(model):
    task = find("task", "center")
    mask = task.mask(jax.random.key(0), 8, model.grid, cells=2)
    return Batch(images(8, model.image_size), mask, task.visible(model.grid, cells=2))


@pytest.mark.slow
def test_the_attack_raises_psnr_and_the_reverse_lowers_it():
    found = fakes.findings("adversarial", **HOW)
    plain, own, universal = (
        found["psnr", (("attack", name),)].value for name in ("none", "each image", "universal")
    )
    assert own > plain + 0.01
    assert universal != plain
    worse = fakes.findings("adversarial", **{**HOW, "step_size": -2 / 255})
    assert worse["psnr", (("attack", "each image"),)].value < plain - 0.01


@pytest.mark.slow
def test_the_universal_change_lowers_the_loss_of_the_images_it_is_made_on():
    subject = fakes.subject(find("audit", "adversarial"))
    change = adversarial.universal(subject, **HOW)
    assert change.shape == (16, 16, 3)
    assert 0 < np.abs(change).max() <= np.float32(8 / 255)
    asked = subject.sets["forget_train"]
    better = subject.measure(adversarial.changed, asked, given=change)
    assert better.mean() > subject.measure(per_image.psnr, asked).mean()


@pytest.mark.parametrize("name", ["autoencoder", pytest.param("diffusion", marks=pytest.mark.slow)])
def test_hidden_pixels_have_no_slope_and_do_not_move(name):
    model = small_model(name)  # E of a diffusion model is shown hidden pixels, under noise
    params, batch = model.init(jax.random.key(0)), batch_of(model)
    change = np.full(batch.images.shape, 0.03, np.float32)
    hidden = np.broadcast_to(pixels.hidden_pixels(batch.mask, 16), batch.images.shape)
    slope = np.asarray(adversarial.slopes(model, params, batch, jax.random.key(1), change))
    assert (slope[hidden] == 0).all()
    assert (slope[~hidden] != 0).mean() > 0.5
    shown = np.asarray(adversarial.shown(model, batch, change))
    assert np.array_equal(shown[hidden], np.asarray(batch.images)[hidden])
    assert shown.max() <= 1


@pytest.mark.slow
def test_the_loss_counts_hidden_pixels_only():
    """The own loss of an autoencoder counts visible ones, too; that of an MAE does not."""
    for name in ("autoencoder", "mae"):
        model = small_model(name)
        params, batch = model.init(jax.random.key(0)), batch_of(model)
        hidden = pixels.hidden_pixels(batch.mask, model.image_size)
        other = jax.numpy.where(hidden, batch.images, 1 - batch.images)
        targets = Batch(other, batch.mask, batch.visible)
        rng = jax.random.key(1)
        one, two = (
            adversarial.hidden_loss(model, params, each, rng, batch.images)
            for each in (batch, targets)
        )
        np.testing.assert_allclose(one, two, rtol=1e-6)


@pytest.mark.slow
def test_models_of_tokens_are_refused():
    assert "no gradient" in adversarial.refuses(small_model("mage"))
    assert all(
        adversarial.refuses(small_model(n)) == ""
        for n in ("mae", "vqgan", "diffusion", "autoencoder")
    )
