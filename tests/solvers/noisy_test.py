"""The noisy solver inside the train step, where the answer is known, and under attack."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.engine.plan import TaskPlan
from l2l_jax.engine.step import UpdateRule, make_update
from l2l_jax.lib import accountant, optim, sharding
from l2l_jax.lib.errors import ConfigError
from l2l_jax.registry import find
from l2l_jax.solvers import noisy
from l2l_jax.types import ImageToImage, Method

TASK = TaskPlan("random", find("task", "random"), dict(ratio=0.5))
SGD = dict(name="sgd", warmup=0.0, weight_decay=0.0)


class Still(ImageToImage):
    """A model of which only the grid is used."""

    image_size, grid, takes_tokens = 4, (4, 4), False


def slope(model, student, teacher, batch, rng):
    """A retain objective with the gradient 3 s on "a" and 4 s on "b"; s: brightness of the batch.

    Black images pull the other way, so that micro-batches of one kind have opposite gradients.
    """
    s = jnp.mean(batch.side("retain").images) * 2 - 1
    total = 3 * s * student["encoder"]["a"].sum() + 4 * s * student["encoder"]["b"].sum()
    return total, jnp.zeros(()), {}


def rule_of(rate, accumulate=1, optimizer=None, **args):
    made, schedule = optim.make_optimizer(steps=10, lr=rate, final=rate, **(optimizer or SGD))
    return UpdateRule(
        phase="noisy", model=Still(), method=Method("x", slope, ("encoder",), ("retain",), False),
        args={}, solver=find("solver", "noisy"), solver_args=args, optimizer=made,
        learning_rate=schedule, seed=0, accumulate=accumulate,
    )  # fmt: skip


def student_of(a, b):
    return {"encoder": {"a": jnp.asarray(a, jnp.float32), "b": jnp.asarray(b, jnp.float32)}}


def stepped(rule, start, center, steps=1, secret=(1, 2), bright=(255,) * 4):
    """The student after some steps; bright: of each of the images of a batch."""
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    certified = {"center": center, "secret": jnp.array(secret, jnp.uint32)}
    fixed, state = rule.fixed(start, {}, certified=certified), rule.init(start)
    images = np.stack([np.full((4, 4, 3), value, np.uint8) for value in bright])
    update = jax.jit(make_update(rule, TASK, mesh))
    for _ in range(steps):
        state, metrics = update(state, fixed, {"retain": images})
        assert np.isfinite(float(metrics["loss"]))
    return jax.device_get(state.student["encoder"])


def test_a_step_is_that_of_the_certificate():
    """theta - rate (clip(g) + decay (theta - c)): the gradient (3, 4) is clipped as a whole."""
    start, center = student_of([1.0], [1.0]), student_of([0.5], [2.0])
    made = stepped(rule_of(0.1, clip=1.0, decay=2.0), start, center)
    np.testing.assert_allclose(made["a"], 1 - 0.1 * (0.6 + 2 * 0.5), rtol=1e-6)
    np.testing.assert_allclose(made["b"], 1 - 0.1 * (0.8 - 2 * 1.0), rtol=1e-6)
    made = stepped(rule_of(0.1, clip=50.0), start, center)
    np.testing.assert_allclose([made["a"][0], made["b"][0]], [0.7, 0.6], rtol=1e-6)


def test_the_mean_over_micro_batches_is_clipped_and_not_each_of_them():
    """Three bright images and a black one: their mean gradient is (1.5, 2), of length 2.5."""
    start = student_of([0.0], [0.0])
    rule = rule_of(1.0, accumulate=4, clip=2.0)
    made = stepped(rule, start, start, bright=(255, 255, 255, 0))
    np.testing.assert_allclose([made["a"][0], made["b"][0]], [-1.2, -1.6], rtol=1e-5)
    whole = stepped(rule_of(1.0, clip=2.0), start, start, bright=(255, 255, 255, 0))
    np.testing.assert_allclose(made["a"], whole["a"], rtol=1e-5)


@pytest.mark.parametrize("rate", [1e-3, 0.5])
def test_noise_has_its_size_whatever_the_learning_rate(rate):
    start = student_of(np.zeros(20_000), np.zeros(20_000))
    rule = rule_of(rate, clip=1.0, sigma=0.3)
    one = stepped(rule, start, start, bright=(255, 255, 0, 0))  # their gradients cancel
    assert np.std(one["a"]) == pytest.approx(0.3, rel=0.02)
    assert np.std(one["b"]) == pytest.approx(0.3, rel=0.02)
    assert abs(np.corrcoef(one["a"], one["b"])[0, 1]) < 0.03
    nine = stepped(rule, start, start, steps=9, bright=(255, 255, 0, 0))
    assert np.std(nine["a"]) == pytest.approx(0.9, rel=0.02), "every step draws new noise"
    other = stepped(rule, start, start, secret=(1, 3), bright=(255, 255, 0, 0))
    assert abs(np.corrcoef(one["a"], other["a"])[0, 1]) < 0.03, "another secret, other noise"


def test_decay_goes_to_the_center_and_not_to_zero():
    start, center = student_of(np.zeros(5000), [0.0]), student_of(np.full(5000, 3.0), [0.0])
    rule = rule_of(0.1, clip=1e-9, decay=2.0, sigma=0.06)
    made = stepped(rule, start, center, steps=60)
    assert np.mean(made["a"]) == pytest.approx(3.0, abs=0.01)
    stationary = 0.06 / np.sqrt(1 - 0.8**2)
    assert np.std(made["a"]) == pytest.approx(stationary, rel=0.05)


def test_the_start_is_inside_the_ball():
    center = {"x": jnp.array([1.0, 1.0]), "y": jnp.array([0.0])}
    far = {"x": jnp.array([4.0, 1.0]), "y": jnp.array([4.0])}
    made = noisy.begin(far, center, radius=1.0)
    np.testing.assert_allclose([*made["x"], *made["y"]], [1.6, 1.0, 0.8], rtol=1e-6)
    near = noisy.begin(far, center, radius=7.0)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), near, far))
    same = noisy.begin(center, center, radius=0.0)
    assert np.isfinite(same["x"]).all()


def test_sigma_is_what_the_guarantee_needs():
    args = dict(epsilon=3.0, delta=1e-6, radius=0.1, clip=2.0, decay=0.0, sigma=0.0, center="")
    settled = noisy.settle(10, 0.01, **args)
    where = dict(start=0.2, steps=10, rate=0.01, clip=2.0)  # two points of the ball, at most
    assert settled["sigma"] == pytest.approx(accountant.sigma_for(3.0, 1e-6, **where))
    found = noisy.certify(10, 0.01, **settled)
    assert found["epsilon"] == pytest.approx(3.0)
    assert found["epsilon_of_the_theorem"] > 3.0
    assert noisy.settle(10, 0.01, **args | dict(sigma=0.5))["sigma"] == 0.5
    pulled = noisy.certify(10, 0.01, **noisy.settle(10, 0.01, **args | dict(decay=20.0)))
    assert pulled["epsilon"] == pytest.approx(3.0)
    assert pulled["sigma"] < found["sigma"], "the pull brings the starts together"
    assert pulled["epsilon_of_the_theorem"] is None
    for rate, decay in ((0.0, 0.0), (0.1, 10.0)):
        with pytest.raises(ConfigError, match="rate times decay below 1"):
            noisy.settle(10, rate, **args | dict(decay=decay))


# Under attack -------------------------------------------------------------------------------------

RUNS, STEPS, RATE, CLIP, RADIUS, DELTA = 4000, 5, 0.1, 1.0, 1.0, 1e-5


class PushedAway:
    """The worst gradient that there is: it carries the parameter away from the center."""

    def __init__(self, center):
        self.center = center

    def gradients(self, student, *weights):
        gradient = jax.tree.map(lambda x, c: -100 * jnp.sign(x - c), student, self.center)
        return [gradient], {"retain": jnp.zeros(()), "forget": jnp.zeros(())}


def ends(start, sigma):
    """Where RUNS runs end that begin at the same far point; one dimension."""
    center = {"x": jnp.zeros(1)}
    args = dict(clip=CLIP, radius=RADIUS, sigma=sigma)

    def run(key):
        student = noisy.begin({"x": jnp.array([start])}, center, **args)
        for step in range(STEPS):
            direction, _ = noisy.update(PushedAway(center), student, step, **args)
            student = jax.tree.map(lambda x, d: x - RATE * d, student, direction)
            student = noisy.after(student, jax.random.fold_in(key, step), **args)
        return student["x"][0]

    keys = jax.random.split(jax.random.key(int(start > 0)), RUNS)
    return np.asarray(jax.jit(jax.vmap(run))(keys))


def attacked(sigma):
    """A lower bound of epsilon: the threshold is chosen on one half, and judged on the other."""
    one, other = ends(50.0, sigma), ends(-50.0, sigma)
    half, best = RUNS // 2, (0.0, 0.0)
    for cut in np.quantile(one[:half], np.linspace(0.05, 0.95, 19)):
        counts = (one[:half] >= cut).sum(), half, (other[:half] >= cut).sum(), half
        best = max(best, (accountant.lower_bound(*counts, DELTA), cut))
    cut = best[1]
    return accountant.lower_bound(
        (one[half:] >= cut).sum(), half, (other[half:] >= cut).sum(), half, DELTA
    )


@pytest.mark.slow
def test_an_attack_stays_below_the_claim_and_not_without_noise():
    where = dict(start=2 * RADIUS, steps=STEPS, rate=RATE, clip=CLIP)
    sigma = accountant.sigma_for(2.0, DELTA, **where)
    assert 0.3 < attacked(sigma) <= 2.0
    assert attacked(0.0) > 2.0
    assert attacked(RATE * sigma) > 2.0, "noise that the learning rate scales is too small"


def test_an_optimizer_with_moments_takes_other_steps():
    """AdamW divides the clipped gradient by its own size: a step of the rate for each value."""
    start = student_of([1.0], [1.0])
    plain = stepped(rule_of(0.1, clip=1.0), start, start)
    adamw = stepped(rule_of(0.1, clip=1.0, optimizer=dict(warmup=0.0)), start, start)
    moved = [1 - float(x["b"][0]) for x in (plain, adamw)]
    assert moved[0] == pytest.approx(0.08)
    assert moved[1] > 0.1 * 0.99


def test_noise_by_the_seed_if_no_secret_is_given():
    start = student_of(np.zeros(100), [0.0])
    rule = rule_of(0.1, clip=1.0, sigma=0.1)
    keys = [
        dataclasses.replace(rule, seed=s).fixed(start, {})["certified"]["secret"] for s in (0, 1)
    ]
    assert not np.array_equal(*keys)
