"""Phases that end by themselves: the step if the movement is known, and the measured limit."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from l2l_jax.engine import measure, retrained
from l2l_jax.engine.plan import TaskPlan
from l2l_jax.engine.step import UpdateRule, make_update
from l2l_jax.lib import sharding
from l2l_jax.lib.errors import ConfigError
from l2l_jax.registry import find
from l2l_jax.types import Method
from l2l_jax.weights.safetensors import Weights
from tests.helpers import small_model

# Three tasks whose movement differs by more than that of many steps, as it does in real runs.
RATIOS = (0.5, 0.25, 0.75)
TASKS = [TaskPlan(str(ratio), find("task", "random"), dict(ratio=ratio)) for ratio in RATIOS]
START = 20.0  # of the counter: each further step moves the outputs by a twentieth


def planted(model, student, teacher, batch, rng, *, lam=0.0):
    """Moves by the hidden share of the task, times a counter that every step increases by 1."""
    counter = jax.tree.leaves(student["encoder"])[0].ravel()[0]
    moved = jnp.mean(batch.side("forget").mask) * counter
    return jnp.zeros(()), jnp.zeros(()), {"moved": moved}


def count_up():
    """An optimizer that adds 1 to every parameter, whatever its gradient."""

    def update(gradients, state, params=None):
        return jax.tree.map(jnp.ones_like, gradients), state

    made = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    return optax.with_extra_args_support(made)


def ending(tasks, limit, steps=60):
    """The number of steps that a phase with the planted movement takes."""
    model = small_model("mae")
    rule = UpdateRule(
        phase="unlearn",
        model=model,
        method=Method("planted", planted, ("encoder",), ("forget",), False, UNTIL=("moved", "lam")),
        args=dict(lam=limit),
        solver=find("solver", "weighted"),
        solver_args=dict(alpha=1.0),
        optimizer=count_up(),
        learning_rate=lambda step: 0.0,
        seed=7,
        tasks=len(tasks),
    )
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    params = model.init(jax.random.key(0))
    params["encoder"] = jax.tree.map(lambda x: jnp.full_like(x, START), params["encoder"])
    updates = [jax.jit(make_update(rule, task, mesh)) for task in tasks]
    state, fixed = rule.init(params), rule.fixed(params, {})
    size = model.image_size
    images = {"forget": np.zeros((8, size, size, 3), np.uint8)}
    for step in range(steps):
        state, metrics = updates[step % len(tasks)](state, fixed, images)
        if metrics["ended"]:
            break
    return int(state.step)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [4, 12, 31])
def test_the_end_is_right_to_one_rotation(wanted):
    """The mean over the tasks is 0.5 x counter, so it reaches the limit at a known step."""
    limit = float(np.mean(RATIOS)) * (START + wanted)
    end = ending(TASKS, limit)
    assert wanted <= end <= wanted + len(TASKS), "one batch of the third task is above at once"
    assert ending(TASKS[:1], RATIOS[0] * (START + wanted)) == wanted + 1, "one task: exactly"


@pytest.mark.slow
def test_a_phase_does_not_end_before_every_task_had_a_step():
    assert ending(TASKS, 1e-3) == len(TASKS)


def test_the_floor_between_retrained_models_is_subtracted():
    """Models are points; the original is at distance 5 of both retrained ones."""
    original, one, other = np.zeros(2), np.array([3.0, 4.0]), np.array([5.0, 0.0])

    def distance(model, teacher):
        return float(np.linalg.norm(model - teacher))

    single = measure.stopping_value("lam", distance, [one], original)
    assert single == {"lam": 5.0, "distance": 5.0, "floor": 0.0, "references": 1}
    both = measure.stopping_value("lam", distance, [one, other], original)
    floor = float(np.sqrt(4 + 16))
    assert both == {"lam": pytest.approx(5 - floor), "distance": 5.0, "floor": pytest.approx(floor),
                    "references": 2}  # fmt: skip
    text = measure.stopping_text(("moved", "lam"), both)
    assert "the 2 retrained models, 5 minus their distance to each other, 4.472" in text
    assert "the retrained model, 5" in measure.stopping_text(("moved", "lam"), single)
    with pytest.raises(ConfigError, match=r"as far from each other \(10\) as from the orig"):
        measure.stopping_value("lam", distance, [one, -one], original)


@pytest.mark.parametrize(("lam", "refused"), [(0.0, True), (0.3, False)])
def test_tokens_of_two_tokenizers_are_not_compared(lam, refused):
    """lambda of ascent is a distance between probabilities of codes."""
    planned = SimpleNamespace(method=find("method", "ascent"), args=dict(lam=lam), stop="")
    plan = SimpleNamespace(phases={"ascent": planned}, references=("runs/a", "runs/b"))
    model = SimpleNamespace(takes_tokens=True)
    own, other = (Weights({"tokenizer": {"x": np.full(2, v)}}, {}) for v in (1.0, 2.0))
    retrained.check_tokens(plan, model, own, (own, own))
    if not refused:
        retrained.check_tokens(plan, model, own, (own, other))
        return
    with pytest.raises(ConfigError, match=r"runs/b has another tokenizer .* cannot be compared"):
        retrained.check_tokens(plan, model, own, (own, other))
    retrained.check_tokens(plan, SimpleNamespace(takes_tokens=False), own, (own, other))


@pytest.mark.slow
def test_the_mean_of_a_rotation_survives_a_checkpoint():
    """A continued phase compares the same mean, so what it needs is part of the saved state."""
    model = small_model("mae")
    rule = dataclasses.replace(
        UpdateRule("a", model, find("method", "ascent"), {}, find("solver", "weighted"), {},
                   count_up(), lambda step: 0.0, 0),
        tasks=3,
    )  # fmt: skip
    saved = rule.init(model.init(jax.random.key(0))).saved()
    assert saved["recent"].shape == (3,)
