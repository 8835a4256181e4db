"""L2L is paper A's equation, term by term."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.noise import NOISES
from l2l_jax.lib.rng import fold
from l2l_jax.methods import l2l
from l2l_jax.tasks import random
from l2l_jax.types import Batch, UnlearnBatch
from tests.helpers import images, small_model

KEY = jax.random.key(4)


def setting(count=6):
    model = small_model("mae")
    teacher = model.init(jax.random.key(0))
    student = jax.tree.map(lambda x: x * 1.05 + 0.01, teacher)
    masks = [random.mask(jax.random.key(i), count, model.grid) for i in (1, 2)]
    parts = [Batch(images(count, 16, i), m, (4, 4)) for i, m in zip((1, 2), masks, strict=True)]
    return model, student, teacher, UnlearnBatch(*parts)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.slow
def test_the_objectives_are_the_equation(noise):
    model, student, teacher, batch = setting()
    retain, forget, _ = l2l.objectives(model, student, teacher, batch, KEY, noise=noise)
    keep, drop = batch.retain, batch.forget

    def latents(params, x, mask):
        return np.asarray(model.encode(params, model.corrupt(params, x, mask, KEY, visible=(4, 4))))

    stays = latents(teacher, keep.images, keep.mask)
    moved = latents(student, keep.images, keep.mask)
    np.testing.assert_allclose(retain, np.mean((moved - stays) ** 2), rtol=1e-5)
    n = l2l.noise_images(
        fold(KEY, "noise"), *l2l.channel_moments(drop.images), noise=noise, clip=False
    )
    goal = latents(teacher, n, drop.mask)
    moved = latents(student, drop.images, drop.mask)
    np.testing.assert_allclose(forget, np.mean((moved - goal) ** 2), rtol=1e-5)


@pytest.mark.slow
def test_each_side_is_a_mean_of_its_own_whatever_the_other_holds():
    model, student, teacher, batch = setting()
    half = UnlearnBatch(jax.tree.map(lambda x: x[:2], batch.retain), batch.forget)
    a = l2l.objectives(model, student, teacher, batch, KEY)
    b = l2l.objectives(model, student, teacher, half, KEY)
    np.testing.assert_allclose(a[1], b[1], rtol=1e-6)  # it does not know how many are retained


def seeded(batch, seeds):
    return dataclasses.replace(
        batch, forget=dataclasses.replace(batch.forget, seeds=jnp.array(seeds, jnp.uint32))
    )


@pytest.mark.slow
def test_fixed_noise_is_the_same_for_an_image_in_every_step():
    """Another step has another key, and the target stays; another seed has another target."""
    model, student, teacher, batch = setting()

    def forget(seeds, step, **args):
        key = jax.random.fold_in(KEY, step)
        return l2l.objectives(model, student, teacher, seeded(batch, seeds), key, **args)[1]

    fixed = dict(fixed_noise=True)
    one = forget(range(6), 1, **fixed)
    assert one == forget(range(6), 2, **fixed)
    assert one != forget(range(1, 7), 1, **fixed)
    assert forget(range(6), 1) != forget(range(6), 2), "without it every step has new noise"
    equal = forget([5] * 6, 1, noise="uniform", **fixed)
    shape, mean, std = l2l.channel_moments(batch.forget.images[:1])
    key, one_image = jax.random.key(jnp.uint32(5)), (1, *shape[1:])
    n = l2l.noise_images(key, one_image, mean, std, noise="uniform")[0]
    latents = [
        model.encode(p, model.corrupt(p, x, batch.forget.mask, KEY, visible=(4, 4)))
        for p, x in ((student, batch.forget.images), (teacher, jnp.stack([n] * 6)))
    ]
    np.testing.assert_allclose(equal, jnp.mean((latents[0] - latents[1]) ** 2), rtol=1e-5)
    assert l2l.needs_seeds(**fixed)
    assert not l2l.needs_seeds(noise="uniform")


@pytest.mark.slow
def test_the_spread_tells_one_point_from_the_distribution_of_noise():
    model, _, teacher, batch = setting()

    def spread(images):
        forget = dataclasses.replace(batch.forget, images=images)
        changed = dataclasses.replace(batch, forget=forget)
        return l2l.objectives(model, teacher, teacher, changed, KEY)[2]["forget_spread"]

    own = batch.forget.images
    n = l2l.noise_images(jax.random.key(1), *l2l.channel_moments(own))
    assert spread(n) == pytest.approx(1.0, rel=0.3), "other noise of the same distribution"
    same_mask = dataclasses.replace(
        batch.forget, mask=jnp.broadcast_to(batch.forget.mask[:1], batch.forget.mask.shape)
    )
    batch = dataclasses.replace(batch, forget=same_mask)
    assert spread(jnp.broadcast_to(own[:1], own.shape)) < 1e-6, "equal images, equal latents"


@pytest.mark.slow
def test_noise_has_the_moments_of_the_forget_images_channel_by_channel():
    scale = jnp.array([0.1, 0.5, 1.0])
    like = images(64, 16) * scale + jnp.array([0.0, 0.2, -0.1])
    n = l2l.noise_images(KEY, *l2l.channel_moments(like), noise="gaussian_like", clip=False)
    np.testing.assert_allclose(n.mean((0, 1, 2)), like.mean((0, 1, 2)), atol=0.01)
    np.testing.assert_allclose(n.std((0, 1, 2)), like.std((0, 1, 2)), rtol=0.02)
    constant = l2l.noise_images(KEY, *l2l.channel_moments(like), noise="constant", clip=False)
    np.testing.assert_allclose(constant, jnp.broadcast_to(like.mean((0, 1, 2)), like.shape))
    standard = (
        l2l.noise_images(KEY, *l2l.channel_moments(like), noise="standard", clip=False) * 2 - 1
    )
    assert abs(standard.mean()) < 0.02
    assert abs(standard.std() - 1) < 0.02
    uniform = l2l.noise_images(KEY, *l2l.channel_moments(like), noise="uniform", clip=False)
    assert 0 <= uniform.min() < 0.01
    assert 0.99 < uniform.max() <= 1


def test_noise_is_clamped_only_on_request():
    like = images(16, 16)
    free = l2l.noise_images(KEY, *l2l.channel_moments(like), noise="standard", clip=False)
    held = l2l.noise_images(KEY, *l2l.channel_moments(like), noise="standard", clip=True)
    assert free.min() < 0 < 1 < free.max()
    np.testing.assert_array_equal(held, jnp.clip(free, 0, 1))


def test_unknown_noise():
    with pytest.raises(ConfigError, match="Did you mean 'uniform'"):
        l2l.noise_images(KEY, *l2l.channel_moments(images(2, 16)), noise="unifrom", clip=False)
