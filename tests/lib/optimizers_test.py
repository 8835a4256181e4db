"""The optimizers of optimizer.name: what a step is, what is refused, and that runs continue."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from l2l_jax.engine import config as table
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.plan import TaskPlan, resolve
from l2l_jax.engine.step import State, UpdateRule, make_update
from l2l_jax.lib import optim, sharding
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.optimizers import DIRECTIONS
from l2l_jax.lib.signatures import keyword_defaults
from l2l_jax.registry import find
from l2l_jax.workdir import checkpoint
from tests.helpers import ROOT, assert_same_bits, small_config, small_model

CURVATURE = {"kernel": jnp.array([[1.0, 4.0], [9.0, 0.5]]), "bias": jnp.array([2.0, 3.0])}
START = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([-1.0, 2.0])}


def gradient(x):
    """Of the bowl sum(CURVATURE x^2) / 2, whose Hessian is diagonal."""
    return jax.tree.map(jnp.multiply, CURVATURE, x)


def step(tx, x, state):
    updates, state = tx.update(gradient(x), state, x, direction=gradient)
    return optax.apply_updates(x, updates), state


def size(x):
    return float(optax.tree.norm(gradient(x)))


def test_the_config_offers_all_of_them():
    assert table.OPTIMIZERS == optim.NAMES
    page = (ROOT / "docs" / "methods.md").read_text()
    for name, make in DIRECTIONS.items():
        given = ", ".join(f"`{key}={value}`" for key, value in keyword_defaults(make).items())
        assert f"| `{name}` | {given} |" in page, name


@pytest.mark.slow
@pytest.mark.parametrize("name", optim.NAMES)
def test_it_descends_and_continues_bit_for_bit(name, tmp_path):
    lr = 0.02 if name == "sgd" else 0.05
    tx, _ = optim.make_optimizer(steps=60, lr=lr, name=name, weight_decay=0.0, warmup=0.0)
    one = jax.jit(lambda x, state: step(tx, x, state))
    x, state = START, tx.init(START)
    for at in range(60):
        if at == 30:
            kept = State(jnp.int32(at), x, state, None)
        x, state = one(x, state)
    assert size(x) < (0.9 if name == "adagrad" else 0.6) * size(START)
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    checkpoints = checkpoint.Checkpoints(tmp_path, 1)
    placed = sharding.place(jax.device_get(kept), sharding.parameter_shardings(mesh, kept))
    checkpoints.save(30, placed.saved())
    checkpoints.wait()
    back = checkpoints.restore(sharding.abstract_tree(mesh, kept.saved()))
    checkpoints.close()
    y, state = back["student"], back["optimizer"]
    for _ in range(30):
        y, state = one(y, state)
    assert_same_bits(jax.device_get(x), jax.device_get(y))


@pytest.mark.parametrize("name", optim.NAMES)
def test_the_learning_rate_scales_the_decay_and_biases_have_none(name):
    """Without a gradient only the decay moves, by lr weight_decay theta, and a bias stays."""
    tx, _ = optim.make_optimizer(steps=10, lr=0.2, name=name, weight_decay=0.5, warmup=0.0)
    nothing = jax.tree.map(jnp.zeros_like, START)
    updates, _ = tx.update(nothing, tx.init(START), START, direction=gradient)
    near = dict(atol=1e-4 if name == "yogi" else 1e-8)  # its first moment begins at 1e-6
    np.testing.assert_allclose(updates["kernel"], -0.1 * START["kernel"], **near)
    np.testing.assert_allclose(updates["bias"], 0, **near)


def test_sgd_is_the_gradient_alone():
    tx, _ = optim.make_optimizer(steps=10, lr=0.1, name="sgd", weight_decay=0.0, warmup=0.0)
    x, state = step(tx, START, tx.init(START))
    np.testing.assert_allclose(x["kernel"], START["kernel"] * (1 - 0.1 * CURVATURE["kernel"]))
    assert not jax.tree.leaves(jax.tree.map(jnp.size, state[1])), "it keeps no momentum"
    args = dict(momentum=0.5)
    tx, rate = optim.make_optimizer(
        steps=10, lr=0.1, name="sgd", args=args, weight_decay=0.0, warmup=0.0
    )
    x, state = step(tx, START, tx.init(START))
    y, _ = step(tx, x, state)
    pushed = gradient(x)["bias"] + 0.5 * gradient(START)["bias"]
    np.testing.assert_allclose(y["bias"], x["bias"] - rate(1) * pushed, rtol=1e-6)


def test_sgd_clips_the_gradient():
    args = dict(steps=10, lr=0.1, weight_decay=0.0, warmup=0.0, clip=0.5)
    tx, _ = optim.make_optimizer(name="sgd", **args)
    x, _ = step(tx, START, tx.init(START))
    moved = jax.tree.map(jnp.subtract, x, START)
    assert float(optax.tree.norm(moved)) == pytest.approx(0.05, rel=1e-5)


def test_sophia_finds_the_curvature():
    """With a diagonal Hessian one vector of signs gives it exactly; its step is Newton's."""
    args = dict(b1=0.0, b2=0.0, gamma=1.0, interval=1, threshold=100.0)
    tx, _ = optim.make_optimizer(
        steps=10, lr=0.1, name="sophia", args=args, weight_decay=0.0, warmup=0.0
    )
    _, state = step(tx, START, tx.init(START))
    found = optax.tree.get(state, "nu")
    np.testing.assert_allclose(found["kernel"], CURVATURE["kernel"], rtol=1e-6)
    x, _ = step(tx, START, state)
    np.testing.assert_allclose(x["kernel"] - START["kernel"], -0.1 * START["kernel"], rtol=0.05)


def optimized(**changes):
    config = small_config()
    config.unlearn.optimizer.update(changes)
    return resolve(config).phases["unlearn"].optimizer


def test_what_no_optimizer_reads_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer\.name is .*not 'sgdd'.* Did you mean 'sgd'"):
        optimized(name="sgdd")
    with pytest.raises(ConfigError, match=r"unlearn\.optimizer\.args does not take 'momentun'"):
        optimized(name="sgd", args=dict(momentun=0.9))
    with pytest.raises(ConfigError, match=r"args\.momentum is at least 0 and below 1, not 1\.5"):
        optimized(name="sgd", args=dict(momentum=1.5))
    with pytest.raises(ConfigError, match=r"unlearn\.optimizer\.args does not take 'b1'"):
        optimized(args=dict(b1=0.5))
    with pytest.raises(ConfigError, match=r"optimizer\.b1=0\.5 is read by adamw alone.*threshold"):
        optimized(name="sophia", b1=0.5)
    assert optimized(name="sgd")["args"] == dict(momentum=0.0, nesterov=False)
    assert optimized(b1=0.5)["name"] == "adamw"


def test_a_run_of_an_older_version_has_adamw():
    config = small_config().to_dict()
    for key in ("name", "args"):
        del config["unlearn"]["optimizer"][key]
    assert complete_config(config)["unlearn"]["optimizer"]["name"] == "adamw"


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["weighted", "pcgrad"])
def test_a_step_of_second_order_traces_with_every_kind_of_solver(solver):
    """Also where a batch is computed in several passes."""
    optimizer, rate = optim.make_optimizer(steps=10, lr=1e-3, name="sophia")
    model, task = small_model("autoencoder"), TaskPlan("random", find("task", "random"), {})
    rule = UpdateRule(
        "unlearn", model, find("method", "l2l"), {}, find("solver", solver), {},
        optimizer, rate, 0, accumulate=2,
    )  # fmt: skip
    state = jax.eval_shape(rule.init, model.template)
    images = jax.ShapeDtypeStruct((4, model.image_size, model.image_size, 3), jnp.uint8)
    update = make_update(rule, task, sharding.make_mesh(1, jax.devices()[:1]))
    fixed = rule.fixed(model.template, model.template)
    new, _ = jax.eval_shape(update, state, fixed, dict(retain=images, forget=images))
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
