"""Solvers on objectives whose answer is known, and their formulas on vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib.errors import ConfigError
from l2l_jax.solvers import epsilon, pcgrad, weighted

A, B = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)


class Bowls:
    """retain = |x - A|^2, forget = |x - B|^2: the Pareto front is the line from A to B."""

    def gradients(self, student, *weights):
        def both(x):
            return jnp.stack([jnp.sum((x["x"] - A) ** 2), jnp.sum((x["x"] - B) ** 2)])

        values, pullback = jax.vjp(both, student)
        metrics = {"retain": values[0], "forget": values[1]}
        return [pullback(jnp.array(w, jnp.float32))[0] for w in weights], metrics


class Given:
    """Objectives with two fixed gradients, of parameters "a" and "b"."""

    def __init__(self, retain, forget, /, **values):
        self.pair, self.values = (retain, forget), {"retain": 1.0, "forget": 1.0} | values

    def gradients(self, student, *weights):
        assert weights == ((1.0, 0.0), (0.0, 1.0))
        return list(self.pair), {name: jnp.float32(value) for name, value in self.values.items()}


def descend(solver, start, steps=2000, rate=0.02, **args):
    """Where plain gradient descent along the solver's direction ends."""

    def one(x, step):
        gradient, _ = solver.update(Bowls(), x, step, **args)
        return jax.tree.map(lambda a, g: a - rate * g, x, gradient), None

    student = {"x": jnp.asarray(start, jnp.float32)}
    return np.asarray(jax.lax.scan(one, student, jnp.arange(steps))[0]["x"])


def trees(*vectors):
    return [
        {"a": jnp.array(v[:2], jnp.float32), "b": jnp.array(v[2:], jnp.float32)} for v in vectors
    ]


def flat(tree):
    return np.concatenate([tree["a"], tree["b"]])


# epsilon -----------------------------------------------------------------------------------------


def test_phase_one_finds_both_boundaries():
    for goal, end in (("drop", B), ("keep", A)):
        found = descend(epsilon, (2.0, 1.0), rate=0.005, goal=goal)
        np.testing.assert_allclose(found, end, atol=1e-2, err_msg=goal)


@pytest.mark.parametrize("r", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_phase_two_ends_where_the_front_meets_epsilon(r):
    """From full forgetting, B: as far towards A as forget <= epsilon allows, on the front."""
    args = dict(goal="walk", r=r, epsilon=0.0, control="", scale=1.0, power=0.0)
    args = epsilon.resolve({"drop": 0.0, "keep": 2.0}, **args)
    assert args["epsilon"] == pytest.approx(2 * r)
    end = descend(epsilon, B, rate=0.01, steps=8000, **args)
    distance = np.sqrt(args["epsilon"])
    np.testing.assert_allclose(end, B + distance / np.sqrt(2) * (A - B), atol=0.03)


def test_the_direction_is_the_nearest_that_keeps_its_promise():
    """g is grad f2 where that does enough for f1, else <grad f1, g> is psi exactly."""
    f1, f2 = trees([1.0, 2.0, 0.0, 1.0], [-1.0, 0.5, 3.0, -2.0])
    gradient, metrics = epsilon.update(Given(f2, f1), {}, 0, goal="drop", scale=0.5, power=2.0)
    inner = flat(f1) @ flat(gradient)
    assert metrics["psi"] == pytest.approx(0.5 * 6.0)
    assert inner == pytest.approx(float(metrics["psi"]), rel=1e-5)
    along = flat(gradient) - flat(f2)
    np.testing.assert_allclose(along, metrics["eta"] * flat(f1), rtol=1e-5)
    gradient, metrics = epsilon.update(Given(f1, f1), {}, 0, goal="drop", scale=0.5)
    assert metrics["eta"] == 0
    np.testing.assert_array_equal(flat(gradient), flat(f1))
    _, cubic = epsilon.update(Given(f2, f1), {}, 0, goal="drop", scale=1.0, power=3.0)
    assert cubic["psi"] == pytest.approx(6.0**1.5, rel=1e-5)


def test_below_epsilon_the_forget_objective_may_rise():
    f1, f2 = trees([1.0, 0.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0])
    walk = dict(goal="walk", epsilon=0.5, scale=1.0)
    gradient, metrics = epsilon.update(Given(f2, f1, forget=0.1), {}, 0, **walk)
    assert metrics["psi"] == pytest.approx(-0.4)
    assert flat(f1) @ flat(gradient) == pytest.approx(-0.4)
    gradient, _ = epsilon.update(Given(f2, f1, forget=0.9), {}, 0, **walk)
    assert flat(f1) @ flat(gradient) == pytest.approx(0.4), "above it it falls"
    _, metrics = epsilon.update(Given(f2, f1, forget=0.1), {}, 0, power=2.0, **walk)
    assert metrics["psi"] == pytest.approx(-0.16), "the sign stays, whatever the power"


def test_at_an_optimum_nothing_divides_by_zero():
    nothing, f2 = trees([0.0] * 4, [1.0, 2.0, 3.0, 4.0])
    gradient, metrics = epsilon.update(Given(nothing, f2), {}, 0, goal="keep")
    assert all(np.isfinite(value) for value in metrics.values())
    np.testing.assert_array_equal(flat(gradient), flat(f2))


@pytest.mark.parametrize("goal", epsilon.GOALS)
def test_the_control_function_is_an_argument(goal):
    f1, f2 = trees([1.0, 2.0, 0.0, 1.0], [-1.0, 0.5, 3.0, -2.0])
    given = Given(f1, f2, retain=0.7) if goal == "keep" else Given(f2, f1, forget=0.7)
    for control, psi in (("norm", 0.5 * 6.0), ("gap", 0.5 * 0.3 * 6.0)):
        args = dict(goal=goal, epsilon=0.4, scale=0.5, control=control)
        gradient, metrics = epsilon.update(given, {}, 0, **args)
        assert metrics["psi"] == pytest.approx(psi, rel=1e-5)
        assert flat(f1) @ flat(gradient) >= psi - 1e-5
    with pytest.raises(ConfigError, match="Did you mean 'norm'"):
        epsilon.update(given, {}, 0, goal=goal, control="nrom")


def test_where_the_walk_should_end():
    assert epsilon.bound(goal="walk", epsilon=0.3, r=0.5) == 0.3
    assert epsilon.bound(goal="drop", epsilon=0.3) == np.inf


def resolved(found, **changes):
    args = dict(goal="walk", r=0.5, epsilon=0.0, control="")
    return epsilon.resolve(found, **(args | changes))


def test_epsilon_outside_of_the_boundaries_is_refused_with_the_boundaries():
    found = {"drop": 0.2, "keep": 0.7}
    assert resolved(found)["epsilon"] == pytest.approx(0.45)
    assert resolved(found, epsilon=0.3)["epsilon"] == 0.3
    for wrong in (0.1, 0.8):
        with pytest.raises(ConfigError, match=r"epsilon_min = 0.2 .*epsilon_max = 0.7"):
            resolved(found, epsilon=wrong)
    with pytest.raises(ConfigError, match=r"epsilon_min = 0.2 .*epsilon_max = inf"):
        resolved({"drop": 0.2}, epsilon=0.1)
    with pytest.raises(ConfigError, match="Did you mean 'gap'"):
        resolved(found, control="gp")
    with pytest.raises(ConfigError, match="wrong way round"):
        resolved({"drop": 0.7, "keep": 0.2})
    with pytest.raises(ConfigError, match="goal 'drop' and 'keep'"):
        resolved({})
    with pytest.raises(ConfigError, match=r"r=1\.5 is no fraction"):
        resolved(found, r=1.5)
    with pytest.raises(ConfigError, match="Did you mean 'walk'"):
        resolved(found, goal="wlak")
    assert resolved({}, epsilon=0.3)["epsilon"] == 0.3, "a given bound needs no phase I"
    assert resolved({}, goal="drop")["goal"] == "drop"
    with pytest.raises(ConfigError, match=r"epsilon=0\.3 is the bound, so that r=0\.75 has no"):
        resolved(found, epsilon=0.3, r=0.75)
    with pytest.raises(ConfigError, match="epsilon=nan is no value"):
        resolved(found, epsilon=np.nan)


# pcgrad ------------------------------------------------------------------------------------------


def test_gradients_that_agree_are_added():
    retain, forget = trees([1.0, 2.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0])
    for scope in pcgrad.SCOPES:
        gradient, metrics = pcgrad.update(Given(retain, forget), {}, 0, alpha=0.5, scope=scope)
        np.testing.assert_allclose(flat(gradient), flat(retain) + 0.5 * flat(forget), rtol=1e-6)
        assert metrics["conflict"] == 0
        assert metrics["loss"] == 1.5


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_rescaled_gradients_have_their_length_whatever_it_was(size):
    retain, forget = trees([2.0, 1.0, 1.0, 0.0], [-1.0, 0.0, 1.0, 1.0])
    args = dict(alpha=0.0, rescale=True)
    one, _ = pcgrad.update(Given(retain, forget), {}, 0, **args)
    pair = [jax.tree.map(lambda x: size * x, tree) for tree in (retain, forget)]
    other, _ = pcgrad.update(Given(*pair), {}, 0, **args)
    np.testing.assert_allclose(flat(other), size * flat(one), rtol=1e-5)


@pytest.mark.parametrize("solver", [pcgrad, weighted])
@pytest.mark.parametrize("alpha", [-0.25, np.nan])
def test_a_wrong_sign_is_refused(solver, alpha):
    with pytest.raises(ConfigError, match=f"alpha={alpha} would undo forgetting"):
        solver.update(Given(*trees([1.0] * 4, [1.0] * 4)), {}, 0, alpha=alpha)


@pytest.mark.parametrize("rescale", [False, True])
def test_gradients_that_conflict_lose_what_is_against_the_other(rescale):
    retain, forget = trees([2.0, 1.0, 1.0, 0.0], [-1.0, 0.0, 1.0, 1.0])
    args = dict(alpha=0.0, rescale=rescale)
    kept, metrics = pcgrad.update(Given(retain, forget), {}, 0, **args)
    assert metrics["conflict"] == 0.5, "the first array conflicts, the second does not"
    assert kept["a"] @ forget["a"] == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(kept["b"], retain["b"])
    length = np.linalg.norm(kept["a"])
    assert length == pytest.approx(np.sqrt(5) if rescale else 1.0, rel=1e-5)
    whole, metrics = pcgrad.update(Given(retain, forget), {}, 0, scope="global", **args)
    assert metrics["conflict"] == 1, "all in all they conflict"
    assert flat(whole) @ flat(forget) == pytest.approx(0, abs=1e-6)
    both, _ = pcgrad.update(Given(retain, forget), {}, 0, alpha=1.0, scope="global")
    gone = flat(both) - flat(pcgrad.update(Given(retain, forget), {}, 0, alpha=0.0,
                                            scope="global")[0])  # fmt: skip
    assert gone @ flat(retain) == pytest.approx(0, abs=1e-5)


def test_opposite_gradients_cancel_and_stay_finite():
    retain, forget = trees([1.0, 0.0, 0.0, 1.0], [-1.0, 0.0, 0.0, -1.0])
    for rescale in (False, True):
        gradient, _ = pcgrad.update(Given(retain, forget), {}, 0, rescale=rescale)
        assert np.isfinite(flat(gradient)).all()
        np.testing.assert_allclose(flat(gradient), 0, atol=1e-4)
    with pytest.raises(ConfigError, match="tensor"):
        pcgrad.update(Given(retain, forget), {}, 0, scope="tensors")


def test_pcgrad_reaches_the_front():
    end = descend(pcgrad, (2.0, 2.0), alpha=1.0, scope="global")
    assert end.sum() == pytest.approx(1.0, abs=0.02), "a point of the line between A and B"
