"""The train step as a function: sharding, accumulation, solvers, the numbers of one golden step."""

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


def recipe(method="l2l", accumulate=1, noise="gaussian_like", alpha=0.25, name="mae", **model):
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


def start_of(recipe):
    original = recipe.model.init(jax.random.key(0))
    noise = jax.random.normal(jax.random.key(9), (10_000,))
    moved = jax.tree.map(lambda x: x + 0.02 * jnp.resize(noise, x.shape), original)
    return original, moved


def rows_of(recipe, step):
    rng = np.random.default_rng(step)
    size = recipe.model.image_size
    shape = (B, size, size, 3)
    return {side: rng.integers(0, 256, shape, np.uint8) for side in recipe.method.SIDES}


def run(recipe, devices=1, fsdp=1, count=1):
    """(final state, [metrics of each step]) on the host."""
    mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
    original, start = start_of(recipe)

    def place(tree):
        return sharding.place(jax.device_get(tree), sharding.parameter_shardings(mesh, tree))

    fixed, state = place(recipe.fixed(start, original)), place(recipe.init(start))
    update = make_update(recipe, TASK, mesh)
    compiled = shard_update(update, state, fixed, recipe.method.SIDES, mesh)
    seen = []
    for step in range(count):
        data = jax.device_put(rows_of(recipe, step), sharding.batch_sharding(mesh))
        state, metrics = compiled(state, fixed, data)
        seen.append(jax.device_get(metrics))
    return jax.device_get(state), seen


@pytest.mark.slow
def test_masks_and_noise_are_a_function_of_seed_and_step():
    """The same images and parameters: another step or seed draws anew, the same one does not."""
    chosen = recipe()
    original, start = start_of(chosen)
    fixed, images = chosen.fixed(start, original), rows_of(chosen, 0)
    mesh = sharding.make_mesh(1, jax.devices()[:1])

    def forget(step, seed=7):
        made = dataclasses.replace(chosen, seed=seed)
        update = make_update(made, TASK, mesh)
        state = dataclasses.replace(chosen.init(start), step=jnp.int32(step))
        return float(jax.jit(update)(state, fixed, images)[1]["forget"])

    assert forget(0) == forget(0)
    assert len({forget(0), forget(1), forget(0, seed=8)}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_ten_steps_on_eight_devices_are_those_on_one(fsdp):
    _, one = run(recipe(), devices=1, count=10)
    _, eight = run(recipe(), devices=8, fsdp=fsdp, count=10)
    for a, b in zip(one, eight, strict=True):
        for name in ("loss", "retain", "forget"):
            assert abs(a[name] - b[name]) < 1e-5, name
    assert one[0]["loss"] != one[-1]["loss"]


@pytest.mark.slow
def test_accumulated_gradients_are_those_of_the_whole_batch():
    whole, (a,) = run(recipe("finetune"), devices=2)
    pieces, (b,) = run(recipe("finetune", accumulate=4), devices=2)
    np.testing.assert_allclose(a["retain"], b["retain"], rtol=1e-5)
    np.testing.assert_allclose(a["gradient_norm"], b["gradient_norm"], rtol=1e-5)
    mu = [jax.tree.leaves(state.optimizer)[1:] for state in (whole, pieces)]
    for x, y in zip(*mu, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


def objectives_of(r, salient=None):
    """(the objectives of a batch, the student)."""
    original, start = start_of(r)
    fixed = r.fixed(start, original, salient=salient)
    key = jax.random.key(0)
    images = rows_of(r, 0)
    halves = {s: draw(r, s, jnp.asarray(x), TASK, key) for s, x in images.items()}
    objectives = BatchObjectives(r, fixed, UnlearnBatch(**halves), key)
    return objectives, {"encoder": start["encoder"]}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.slow
def test_solvers_weigh_what_may_move_and_nothing_else(accumulate):
    """Or a share, a projection, a promise about gradients would be one of what does not move."""
    r = recipe(name="autoencoder", accumulate=accumulate)
    _, student = objectives_of(r)
    salient = jax.tree.map(lambda x: jnp.arange(x.size).reshape(x.shape) % 3 == 0, student)
    objectives, _ = objectives_of(r, salient)
    if accumulate > 1:
        halved = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), objectives.batch)
        objectives = dataclasses.replace(objectives, batch=halved)
    (retain, forget), _ = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0))
    for pulled in (retain, forget):
        for x, may in zip(jax.tree.leaves(pulled), jax.tree.leaves(salient), strict=True):
            assert not x[~may].any()
            assert x[may].any()
    gradient, _ = normalized.update(objectives, student, jnp.int32(0), share=0.3)
    added = jax.tree.map(jnp.subtract, gradient, retain)
    lengths = [float(optax.tree.norm(tree)) for tree in (added, retain)]
    assert lengths[0] == pytest.approx(0.3 * lengths[1], rel=1e-3)
    gradient, metrics = epsilon.update(objectives, student, jnp.int32(0), goal="drop", scale=3.0)
    assert metrics["eta"] > 0
    assert trees.dot(forget, gradient) == pytest.approx(float(metrics["psi"]), rel=1e-3)


@pytest.mark.slow
def test_the_solver_asks_for_one_gradient_and_gets_the_weighted_sum():
    objectives, student = objectives_of(recipe(alpha=0.7))
    (retain, forget, both), _ = objectives.gradients(student, (1.0, 0.0), (0.0, 1.0), (1.0, 0.7))
    gradient, metrics = weighted.update(objectives, student, jnp.int32(0), alpha=0.7)
    expected = jax.tree.map(lambda x, y: x + 0.7 * y, retain, forget)
    for x, y, z in zip(*map(jax.tree.leaves, (gradient, expected, both)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)
        np.testing.assert_allclose(x, z, atol=1e-6)
    total = float(metrics["retain"] + 0.7 * metrics["forget"])
    assert float(metrics["loss"]) == pytest.approx(total, rel=1e-6)


def test_the_student_learns_in_its_own_surroundings():
    """The student's frozen decoder is its own, not the teacher's, when a phase before moved it."""
    r = recipe("l2l")
    original, start = start_of(r)
    fixed = r.fixed(start, original)
    assert fixed["frozen"]["decoder"] is start["decoder"]
    assert fixed["teacher"] is original
    assert recipe("finetune").fixed(start, original)["teacher"] == {}


@pytest.mark.slow
def test_randomness_follows_seed_phase_and_step():
    base = recipe("finetune")
    _, (one, two) = run(base, count=2)
    _, (again, _) = run(base, count=2)
    assert one["retain"] == again["retain"]
    _, (other,) = run(dataclasses.replace(base, seed=8))
    assert other["retain"] != one["retain"]
    _, (phase,) = run(dataclasses.replace(base, phase="later"))
    assert phase["retain"] != one["retain"]
    assert one["learning_rate"] > two["learning_rate"] > 0


@pytest.mark.slow
def test_a_method_that_finds_its_end_stops_there_whatever_is_dispatched_after():
    r = dataclasses.replace(recipe("ascent"), args=dict(lam=1e-9), ema=0.5)
    original, start = start_of(r)
    fixed = r.fixed(start, original)
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    update = jax.jit(make_update(r, TASK, mesh))
    first = r.init(start)
    assert not first.ended
    state, metrics = update(first, fixed, rows_of(r, 0))
    assert metrics["ended"] == 1
    for _ in range(2):
        assert (int(state.step), bool(state.ended)) == (1, True)
        kept = [jax.tree.leaves((s.student, s.optimizer, s.average)) for s in (state, first)]
        assert all(np.array_equal(x, y) for x, y in zip(*kept, strict=True))
        state, _ = update(state, fixed, rows_of(r, 1))
    never = dataclasses.replace(r, args=dict(lam=0.0))
    update = make_update(never, TASK, mesh)
    state, metrics = jax.jit(update)(never.init(start), fixed, rows_of(never, 0))
    assert metrics["ended"] == 0, "without a lambda all steps are taken"
    assert int(state.step) == 1
    assert not isinstance(recipe("l2l").init(start), EndingState)


def averaging(ema, count, salient=None):
    """(the beginning, [state after each of so many steps]); lr is large, so that much moves.

    So is eps: otherwise Adam makes a whole step of the last digit of a gradient that is nearly
    zero, and two programs differ by it.
    """
    optimizer, rate = optim.make_optimizer(steps=20, lr=3e-2, warmup=0.0, eps=1e-2)
    r = dataclasses.replace(recipe(), ema=ema, optimizer=optimizer, learning_rate=rate)
    original, start = start_of(r)
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    update = jax.jit(make_update(r, TASK, mesh))
    states = [r.init(start)]
    for step in range(count):
        fixed = r.fixed(start, original, salient=salient)
        states.append(update(states[-1], fixed, rows_of(r, step))[0])
    return {"encoder": start["encoder"]}, jax.device_get(states)


def leaves(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.slow
def test_the_average_is_that_of_the_beginning_and_of_every_step():
    """Palette's code averages with a random initialisation, which stays in its EMA network."""
    start, states = averaging(0.75, 4)
    average = leaves(start).astype(np.float64)
    assert np.array_equal(leaves(states[0].average), average), "the first step has not been yet"
    for state in states[1:]:
        average = 0.75 * average + 0.25 * leaves(state.student)
        np.testing.assert_allclose(leaves(state.average), average, rtol=1e-6, atol=1e-7)
        assert leaves(state.average).dtype == np.float32
    assert states[-1].result is states[-1].average
    assert np.abs(leaves(states[-1].student) - average).max() > 1e-3
    _, plain = averaging(0.0, 4)
    assert plain[-1].result is plain[-1].student
    for a, b in zip(plain, states, strict=True):
        np.testing.assert_allclose(
            leaves(a.student), leaves(b.student), atol=1e-5, err_msg="nothing else moves"
        )


@pytest.mark.slow
def test_what_may_not_move_does_not_move_in_the_average():
    """Not by a bit, in spite of 0.9999 x + 0.0001 x, which is not always x."""
    start, _ = averaging(0.9999, 0)
    keep = jax.tree.map(lambda x: jnp.arange(x.size).reshape(x.shape) % 2 == 0, start)
    start, states = averaging(0.9999, 3, salient=keep)
    begun, ended, keep = (leaves(tree) for tree in (start, states[-1].average, keep))
    assert np.array_equal(begun[~keep], ended[~keep])
    assert np.mean(begun[keep] != ended[keep]) > 0.5


def test_without_an_average_a_state_is_what_it_was_before_there_were_any():
    """Its arrays and their names, in the step and in the checkpoint; with one, one more field."""
    for method, more in (("l2l", ()), ("ascent", ("ended",))):
        r = recipe(method)
        _, start = start_of(r)
        state = r.init(start)
        known = jax.tree.leaves((state.step, state.student, state.optimizer))
        known += [getattr(state, name) for name in more]
        assert list(map(id, jax.tree.leaves(state))) == list(map(id, known))
        assert tuple(state.saved()) == ("step", "student", "optimizer", *more)
        with_one = dataclasses.replace(r, ema=0.9).init(start).saved()
        assert tuple(with_one) == ("step", "student", "optimizer", "average", *more)


@pytest.mark.slow
def test_the_average_lies_as_the_student_does_and_makes_room_for_the_next():
    r, mesh = dataclasses.replace(recipe(), ema=0.9), sharding.make_mesh(2, jax.devices()[:2])
    original, start = start_of(r)
    whole = jax.tree.map(jnp.copy, r.fixed(start, original))  # parts of `start` may be given twice
    fixed = sharding.place(whole, sharding.parameter_shardings(mesh, whole))
    shardings = sharding.parameter_shardings(mesh, jax.eval_shape(r.init, start))
    state = jax.jit(r.init, out_shardings=shardings)(start)
    update = make_update(r, TASK, mesh)
    compiled = shard_update(update, state, fixed, r.method.SIDES, mesh)
    rows = jax.device_put(rows_of(r, 0), sharding.batch_sharding(mesh))
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
    _, (metrics,) = run(recipe(name=name))
    moved = {
        key: (want, float(metrics[key]))
        for key, want in GOLDEN[name].items()
        if not np.isclose(metrics[key], want, rtol=1e-4, atol=1e-6)
    }
    assert not moved, (
        f"One step of L2L on the smallest {name} gives other numbers (expected, got): {moved}. "
        "If you meant to change the numerics, say so in the commit and paste the new values into "
        "GOLDEN; if not, this is a bug."
    )
