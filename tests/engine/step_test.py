"""The train step: sharding, accumulation, solvers, EMA, recorded numbers of one step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from l2l_jax.engine.plan import TaskPlan
from l2l_jax.engine.step import (
    BatchObjectives,
    EndingState,
    UpdateRule,
    draw,
    make_update,
    shard_update,
)
from l2l_jax.lib import optim, sharding, trees
from l2l_jax.registry import find, names
from l2l_jax.solvers import epsilon, normalized, weighted
from l2l_jax.types import UnlearnBatch
from tests.helpers import small_model

B = 16

TASK = TaskPlan("random", find("task", "random"), dict(ratio=0.75))


def make_rule(method="l2l", accumulate=1, noise="gaussian_like", alpha=0.25, name="mae", **model):
    optimizer, rate = optim.make_optimizer(steps=20, lr=3e-3, warmup=0.0)
    return UpdateRule(
        phase="unlearn",
        model=small_model(name, **model),
        method=find("method", method),
        args=dict(noise=noise) if method == "l2l" else {},
        solver=find("solver", "weighted"),
        solver_args=dict(alpha=alpha),
        optimizer=optimizer,
        learning_rate=rate,
        seed=7,
        accumulate=accumulate,
    )


def start_of(rule):
    original = rule.model.init(jax.random.key(0))
    noise = jax.random.normal(jax.random.key(9), (10_000,))
    moved = jax.tree.map(lambda x: x + 0.02 * jnp.resize(noise, x.shape), original)
    return original, moved


def rows_of(rule, step):
    rng = np.random.default_rng(step)
    size = rule.model.image_size
    shape = (B, size, size, 3)
    return {side: rng.integers(0, 256, shape, np.uint8) for side in rule.method.SIDES}


def run(rule, devices=1, fsdp=1, count=1):
    """Returns (final state, [metrics of each step]) on the host."""
    mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
    original, start = start_of(rule)

    def place(tree):
        return sharding.place(jax.device_get(tree), sharding.parameter_shardings(mesh, tree))

    fixed, state = place(rule.fixed(start, original)), place(rule.init(start))
    update = make_update(rule, TASK, mesh)
    compiled = shard_update(update, state, fixed, rule.method.SIDES, mesh)
    records = []
    for step in range(count):
        data = jax.device_put(rows_of(rule, step), sharding.batch_sharding(mesh))
        state, metrics = compiled(state, fixed, data)
        records.append(jax.device_get(metrics))
    return jax.device_get(state), records


@pytest.mark.slow
def test_masks_and_noise_are_a_function_of_seed_and_step():
    """Images and parameters are fixed; the forget objective changes with step and seed only."""
    rule = make_rule()
    original, start = start_of(rule)
    fixed, images = rule.fixed(start, original), rows_of(rule, 0)
    mesh = sharding.make_mesh(1, jax.devices()[:1])

    def forget(step, seed=7):
        seeded = dataclasses.replace(rule, seed=seed)
        update = make_update(seeded, TASK, mesh)
        state = dataclasses.replace(rule.init(start), step=jnp.int32(step))
        return float(jax.jit(update)(state, fixed, images)[1]["forget"])

    assert forget(0) == forget(0)
    assert len({forget(0), forget(1), forget(0, seed=8)}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_ten_steps_are_equal_on_eight_devices_and_on_one(fsdp):
    _, one = run(make_rule(), devices=1, count=10)
    _, eight = run(make_rule(), devices=8, fsdp=fsdp, count=10)
    for a, b in zip(one, eight, strict=True):
        for name in ("loss", "retain", "forget"):
            assert abs(a[name] - b[name]) < 1e-5, name
    assert one[0]["loss"] != one[-1]["loss"]


@pytest.mark.slow
def test_accumulated_gradients_equal_those_of_the_whole_batch():
    whole, (a,) = run(make_rule("finetune"), devices=2)
    accumulated, (b,) = run(make_rule("finetune", accumulate=4), devices=2)
    np.testing.assert_allclose(a["retain"], b["retain"], rtol=1e-5)
    np.testing.assert_allclose(a["gradient_norm"], b["gradient_norm"], rtol=1e-5)
    mu = [jax.tree.leaves(state.optimizer)[1:] for state in (whole, accumulated)]
    for x, y in zip(*mu, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


def objectives_of(rule, salient=None):
    """Returns (the objectives of a batch, the student)."""
    original, start = start_of(rule)
    fixed = rule.fixed(start, original, salient=salient)
    key = jax.random.key(0)
    images = rows_of(rule, 0)
    halves = {s: draw(rule, s, jnp.asarray(x), TASK, key) for s, x in images.items()}
    objectives = BatchObjectives(rule, fixed, UnlearnBatch(**halves), key)
    return objectives, {"encoder": start["encoder"]}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.slow
def test_solvers_use_gradients_of_salient_parameters_only(accumulate):
    """Norms and inner products in a solver must not count parameters that cannot change."""
    rule = make_rule(name="autoencoder", accumulate=accumulate)
    _, student = objectives_of(rule)
    salient = jax.tree.map(lambda x: jnp.arange(x.size).reshape(x.shape) % 3 == 0, student)
    objectives, _ = objectives_of(rule, salient)
    if accumulate > 1:
        halved = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), objectives.batch)
        objectives = dataclasses.replace(objectives, batch=halved)
    (retain, forget), _ = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0))
    for gradient in (retain, forget):
        for x, mask in zip(jax.tree.leaves(gradient), jax.tree.leaves(salient), strict=True):
            assert not x[~mask].any()
            assert x[mask].any()
    gradient, _ = normalized.update(objectives, student, jnp.int32(0), share=0.3)
    added = jax.tree.map(jnp.subtract, gradient, retain)
    lengths = [float(optax.tree.norm(tree)) for tree in (added, retain)]
    assert lengths[0] == pytest.approx(0.3 * lengths[1], rel=1e-3)
    gradient, metrics = epsilon.update(
        objectives, student, jnp.int32(0), goal="full_forgetting", scale=3.0
    )
    assert metrics["eta"] > 0
    assert trees.dot(forget, gradient) == pytest.approx(float(metrics["psi"]), rel=1e-3)


@pytest.mark.slow
def test_one_gradient_is_that_of_the_weighted_sum():
    objectives, student = objectives_of(make_rule(alpha=0.7))
    (retain, forget, both), _ = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0), (1.0, 0.7))
    gradient, metrics = weighted.update(objectives, student, jnp.int32(0), alpha=0.7)
    expected = jax.tree.map(lambda x, y: x + 0.7 * y, retain, forget)
    for x, y, z in zip(*map(jax.tree.leaves, (gradient, expected, both)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)
        np.testing.assert_allclose(x, z, atol=1e-6)
    total = float(metrics["retain"] + 0.7 * metrics["forget"])
    assert float(metrics["loss"]) == pytest.approx(total, rel=1e-6)


@pytest.mark.slow
def test_the_student_keeps_its_own_frozen_groups():
    """If an earlier phase changed the decoder, the student's frozen decoder is that one."""
    rule = make_rule("l2l")
    original, start = start_of(rule)
    fixed = rule.fixed(start, original)
    assert fixed["frozen"]["decoder"] is start["decoder"]
    assert fixed["teacher"] is original
    assert make_rule("finetune").fixed(start, original)["teacher"] == {}


@pytest.mark.slow
def test_randomness_follows_seed_phase_and_step():
    base = make_rule("finetune")
    _, (one, two) = run(base, count=2)
    _, (again, _) = run(base, count=2)
    assert one["retain"] == again["retain"]
    _, (other,) = run(dataclasses.replace(base, seed=8))
    assert other["retain"] != one["retain"]
    _, (phase,) = run(dataclasses.replace(base, phase="later"))
    assert phase["retain"] != one["retain"]
    assert one["learning_rate"] > two["learning_rate"] > 0


@pytest.mark.slow
def test_an_image_has_one_seed_in_all_steps():
    rule = make_rule()
    images = jnp.zeros((4, rule.model.image_size, rule.model.image_size, 3), jnp.uint8)

    def seeds(rows, step, **changes):
        changed = dataclasses.replace(rule, **changes)
        return np.asarray(draw(changed, "forget", images, TASK, jax.random.key(step), rows).seeds)

    rows = jnp.array([3, 0, 3, 7])
    drawn = seeds(rows, 0)
    assert drawn[0] == drawn[2]
    assert len(set(drawn.tolist())) == 3
    assert np.array_equal(drawn, seeds(rows, 1))
    assert np.array_equal(drawn[::-1], seeds(rows[::-1], 1))
    assert not np.array_equal(drawn, seeds(rows, 0, seed=8)), "the seed of the run decides"
    assert draw(rule, "forget", images, TASK, jax.random.key(0)).seeds is None


@pytest.mark.slow
def test_a_phase_that_ended_ignores_later_steps():
    rule = dataclasses.replace(make_rule("ascent"), args=dict(lam=1e-9), ema=0.5)
    original, start = start_of(rule)
    fixed = rule.fixed(start, original)
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    update = jax.jit(make_update(rule, TASK, mesh))
    first = rule.init(start)
    assert not first.ended
    state, metrics = update(first, fixed, rows_of(rule, 0))
    assert metrics["ended"] == 1
    for _ in range(2):
        assert (int(state.step), bool(state.ended)) == (1, True)
        kept = [jax.tree.leaves((s.student, s.optimizer, s.average)) for s in (state, first)]
        assert all(np.array_equal(x, y) for x, y in zip(*kept, strict=True))
        state, _ = update(state, fixed, rows_of(rule, 1))
    never = dataclasses.replace(rule, args=dict(lam=0.0))
    update = make_update(never, TASK, mesh)
    state, metrics = jax.jit(update)(never.init(start), fixed, rows_of(never, 0))
    assert metrics["ended"] == 0, "without a lambda the phase takes all steps"
    assert int(state.step) == 1
    assert not isinstance(make_rule("l2l").init(start), EndingState)


def run_with_average(ema, count, salient=None):
    """Returns (initial student, [initial state, state after each of `count` steps]).

    The learning rate is large, so that parameters change visibly. eps is large, too: otherwise Adam
    turns the rounding error of a gradient near zero into a full step, and two programs differ.
    """
    optimizer, rate = optim.make_optimizer(steps=20, lr=3e-2, warmup=0.0, eps=1e-2)
    rule = dataclasses.replace(make_rule(), ema=ema, optimizer=optimizer, learning_rate=rate)
    original, start = start_of(rule)
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    update = jax.jit(make_update(rule, TASK, mesh))
    states = [rule.init(start)]
    for step in range(count):
        fixed = rule.fixed(start, original, salient=salient)
        states.append(update(states[-1], fixed, rows_of(rule, step))[0])
    return {"encoder": start["encoder"]}, jax.device_get(states)


def leaves(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.slow
def test_the_average_includes_the_beginning_and_every_step():
    """In Palette's code the average begins with random weights, which stay in it."""
    start, states = run_with_average(0.75, 4)
    average = leaves(start).astype(np.float64)
    assert np.array_equal(leaves(states[0].average), average), "before the first step"
    for state in states[1:]:
        average = 0.75 * average + 0.25 * leaves(state.student)
        np.testing.assert_allclose(leaves(state.average), average, rtol=1e-6, atol=1e-7)
        assert leaves(state.average).dtype == np.float32
    assert states[-1].result is states[-1].average
    assert np.abs(leaves(states[-1].student) - average).max() > 1e-3
    _, plain = run_with_average(0.0, 4)
    assert plain[-1].result is plain[-1].student
    for a, b in zip(plain, states, strict=True):
        np.testing.assert_allclose(
            leaves(a.student),
            leaves(b.student),
            atol=1e-5,
            err_msg="the average does not change training",
        )


@pytest.mark.slow
def test_masked_parameters_keep_their_bits_in_the_average():
    """0.9999 x + 0.0001 x is not always x after rounding, so they need special care."""
    start, _ = run_with_average(0.9999, 0)
    keep = jax.tree.map(lambda x: jnp.arange(x.size).reshape(x.shape) % 2 == 0, start)
    start, states = run_with_average(0.9999, 3, salient=keep)
    first, last, keep = (leaves(tree) for tree in (start, states[-1].average, keep))
    assert np.array_equal(first[~keep], last[~keep])
    assert np.mean(first[keep] != last[keep]) > 0.5


def test_a_state_without_an_average_has_no_field_for_it():
    """The arrays and their names in the step and in the checkpoint; an EMA adds one field."""
    for method, extra in (("l2l", ()), ("ascent", ("ended", "recent"))):
        rule = make_rule(method)
        _, start = start_of(rule)
        state = rule.init(start)
        expected = jax.tree.leaves((state.step, state.student, state.optimizer))
        expected += [getattr(state, name) for name in extra]
        assert list(map(id, jax.tree.leaves(state))) == list(map(id, expected))
        assert tuple(state.saved()) == ("step", "student", "optimizer", *extra)
        with_average = dataclasses.replace(rule, ema=0.9).init(start).saved()
        assert tuple(with_average) == ("step", "student", "optimizer", "average", *extra)


@pytest.mark.slow
def test_the_average_is_sharded_as_the_student_and_donated():
    rule, mesh = dataclasses.replace(make_rule(), ema=0.9), sharding.make_mesh(2, jax.devices()[:2])
    original, start = start_of(rule)
    whole = jax.tree.map(jnp.copy, rule.fixed(start, original))  # parts of `start` may occur twice
    fixed = sharding.place(whole, sharding.parameter_shardings(mesh, whole))
    shardings = sharding.parameter_shardings(mesh, jax.eval_shape(rule.init, start))
    state = jax.jit(rule.init, out_shardings=shardings)(start)
    update = make_update(rule, TASK, mesh)
    compiled = shard_update(update, state, fixed, rule.method.SIDES, mesh)
    rows = jax.device_put(rows_of(rule, 0), sharding.batch_sharding(mesh))
    new, _ = compiled(state, fixed, rows)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.average))
    pairs = list(zip(*map(jax.tree.leaves, (new.student, new.average)), strict=True))
    assert all(a.sharding == b.sharding for a, b in pairs)
    assert not all(leaf.sharding.is_fully_replicated for leaf, _ in pairs)


GOLDEN = {
    "autoencoder": {
        "loss": 0.133032,
        "retain": 0.038260,
        "forget": 0.379090,
        "gradient_norm": 0.346377,
        "update_norm": 0.124899,
    },
    "mae": {
        "loss": 0.539143,
        "retain": 0.134452,
        "forget": 1.618764,
        "gradient_norm": 3.067174,
        "update_norm": 0.257394,
    },
    "mage": {
        "loss": 0.903670,
        "retain": 0.685228,
        "forget": 0.873770,
        "gradient_norm": 7.481184,
        "update_norm": 0.266471,
    },
    "vqgan": {
        "loss": 0.179606,
        "retain": 0.078489,
        "forget": 0.404470,
        "gradient_norm": 1.345956,
        "update_norm": 0.212994,
    },
    "diffusion": {
        "loss": 0.404829,
        "retain": 0.126516,
        "forget": 1.113250,
        "gradient_norm": 1.181280,
        "update_norm": 0.255651,
    },
}


@pytest.mark.parametrize("name", names("model"))
@pytest.mark.slow
def test_golden_step(name):
    _, (metrics,) = run(make_rule(name=name))
    different = {
        key: (value, float(metrics[key]))
        for key, value in GOLDEN[name].items()
        if not np.isclose(metrics[key], value, rtol=1e-4, atol=1e-6)
    }
    assert not different, (
        f"One step of L2L on the smallest {name} gives other numbers (expected, got): {different}. "
        "If you meant to change the numerics, say so in the commit and paste the new values into "
        "GOLDEN; if not, this is a bug."
    )
