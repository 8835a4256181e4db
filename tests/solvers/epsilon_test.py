"""The epsilon solver where the answer is known: formulas on vectors, bowls, and a linear model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib import optim
from l2l_jax.lib.errors import ConfigError
from l2l_jax.solvers import epsilon
from tests.solvers.toys import A, B, Given, descend, flat, trees

POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of r


# A linear encoder: the whole recipe from the optimum, against the exact front ---------------------


class Linear:
    """L2L with a linear encoder W: retain = |W x - W0 x|^2, forget = |W y - W0 n|^2, means.

    At W0 the retain objective is 0, as L2L's is at the original. The front is known: its points
    minimise retain + weight * forget, which is a linear system. `unit` scales both objectives.
    """

    def __init__(self, unit=1.0, noise=0.0, inputs=24, latents=8):
        rng = np.random.default_rng(0)
        retained = rng.normal(size=(40, inputs)) * np.linspace(2.0, 0.2, inputs)
        forgotten = rng.normal(size=(12, inputs)) * np.linspace(0.3, 1.5, inputs) + 0.5
        self.start = rng.normal(size=(latents, inputs))
        self.sides = []
        for images, target in ((retained, retained), (forgotten, rng.normal(size=(12, inputs)))):
            self.sides.append((np.sqrt(unit) * images, np.sqrt(unit) * target @ self.start.T))
        self.noise = noise  # relative, of the values in each step, as those of batches have

    def values(self, w):
        return jnp.stack([jnp.mean((x @ w.T - y) ** 2) for x, y in self.sides])

    def gradients(self, student, *weights, step=0):
        values, pullback = jax.vjp(self.values, student["w"])
        factor = 1 + self.noise * jax.random.normal(jax.random.fold_in(jax.random.key(0), step))
        metrics = {"retain": values[0], "forget": factor * values[1]}
        return [{"w": pullback(jnp.array(each))[0]} for each in weights], metrics

    def front(self, forget):
        """The smallest retain objective with at most this forget objective."""
        (x, a), (y, b) = self.sides
        points = []
        for weight in np.logspace(-5, 6, 300):
            both = x.T @ x / len(x) + weight * y.T @ y / len(y)
            right = x.T @ a / len(x) + weight * y.T @ b / len(y)
            points.append(np.asarray(self.values(np.linalg.solve(both, right).T)))
        retain, found = np.transpose(points)
        return np.interp(forget, found[::-1], retain[::-1])


def train(problem, w, steps, rate, **args):
    """Where AdamW with the schedule of the project ends along the solver's direction."""
    optimizer, _ = optim.make_optimizer(
        steps=steps, lr=rate, warmup=0.05, final=0.0, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.0,
        clip=0.0,
    )  # fmt: skip

    def one(carry, step):
        student, state = carry
        given = functools.partial(problem.gradients, step=step)
        objectives = type("Objectives", (), {"gradients": staticmethod(given)})
        gradient, _ = epsilon.update(objectives, student, step, **args)
        updates, state = optimizer.update(gradient, state, student)
        return (jax.tree.map(jnp.add, student, updates), state), None

    student = {"w": jnp.asarray(w, jnp.float32)}
    end, _ = jax.lax.scan(one, (student, optimizer.init(student)), jnp.arange(steps))
    return np.asarray(end[0]["w"], np.float64)


def recipe(problem, steps=300, rate=0.05, **args):
    """{r: (retain, forget) at the end}, and the boundaries; as the engine runs the phases."""
    forgotten = train(problem, problem.start, steps, rate, goal="full_forgetting")
    starts = {"full_utility": problem.start, "full_forgetting": forgotten}
    found = {name: float(problem.values(w)[1]) for name, w in starts.items()}
    ends = {}
    for r in POINTS:
        given = dict(goal="tradeoff", r=r, epsilon=0.0, unit=0.0, control="") | args
        start = starts[epsilon.start(found, **given)]
        ends[r] = np.asarray(
            problem.values(train(problem, start, steps, rate, **epsilon.resolve(found, **given)))
        )
    return ends, found


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "noise"), [(1.0, 0.0), (0.01, 0.0), (0.01, 0.2)])
def test_r_covers_the_whole_range_from_the_optimum(unit, noise):
    """Five points from full forgetting to the original, each near the front at its epsilon."""
    problem = Linear(unit, noise)
    ends, found = recipe(problem)
    retain, forget = np.transpose([ends[r] for r in POINTS])
    low, high = found["full_forgetting"], found["full_utility"]
    assert low < 0.03 * high, "phase I forgets as far as the model can"
    assert forget[-1] - forget[0] > 0.95 * high, "r covers the range from nothing to the original"
    assert forget[-1] == pytest.approx(high, rel=0.05), "r = 1 is as the original"
    assert retain[-1] < 1e-2 * retain[0]
    np.testing.assert_allclose(forget, low + np.array(POINTS) * (high - low), atol=0.05 * high)
    assert (np.diff(forget) > 0).all()
    assert (np.diff(retain) < 0).all()
    on_front = problem.front(forget)
    assert (retain < 1.1 * on_front + 0.02 * retain[0]).all(), (retain, on_front)


@pytest.mark.slow
def test_the_absolute_gap_depends_on_the_unit():
    """The reason for the default: in a unit with large values the absolute gap misses the front."""
    problem = Linear(unit=1.0)
    for control, near in (("gap", False), ("relative_gap", True)):
        ends, _ = recipe(problem, control=control)
        retain, forget = ends[0.5]
        assert (retain < 1.1 * problem.front(forget)) == near, control


# Two bowls ---------------------------------------------------------------------------------------


def test_phase_one_finds_both_boundaries():
    for goal, end in (("full_forgetting", B), ("full_utility", A)):
        found = descend(epsilon, (2.0, 1.0), rate=0.005, goal=goal)
        np.testing.assert_allclose(found, end, atol=1e-2, err_msg=goal)


@pytest.mark.parametrize("r", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_phase_two_ends_where_the_front_meets_epsilon(r):
    """From full forgetting, B: as far towards A as forget <= epsilon allows, on the front."""
    args = dict(goal="tradeoff", r=r, epsilon=0.0, unit=0.0, control="", scale=1.0, power=0.0)
    args = epsilon.resolve({"full_forgetting": 0.0, "full_utility": 2.0}, **args)
    assert args["epsilon"] == pytest.approx(2 * r)
    end = descend(epsilon, B, rate=0.01, steps=8000, **args)
    distance = np.sqrt(args["epsilon"])
    np.testing.assert_allclose(end, B + distance / np.sqrt(2) * (A - B), atol=0.03)


def test_the_direction_is_the_nearest_that_keeps_its_promise():
    """g is grad f2 where that does enough for f1, else <grad f1, g> is psi exactly."""
    f1, f2 = trees([1.0, 2.0, 0.0, 1.0], [-1.0, 0.5, 3.0, -2.0])
    gradient, metrics = epsilon.update(
        Given(f2, f1), {}, 0, goal="full_forgetting", scale=0.5, power=2.0
    )
    inner = flat(f1) @ flat(gradient)
    assert metrics["psi"] == pytest.approx(0.5 * 6.0)
    assert inner == pytest.approx(float(metrics["psi"]), rel=1e-5)
    along = flat(gradient) - flat(f2)
    np.testing.assert_allclose(along, metrics["eta"] * flat(f1), rtol=1e-5)
    gradient, metrics = epsilon.update(Given(f1, f1), {}, 0, goal="full_forgetting", scale=0.5)
    assert metrics["eta"] == 0
    np.testing.assert_array_equal(flat(gradient), flat(f1))
    _, cubic = epsilon.update(Given(f2, f1), {}, 0, goal="full_forgetting", scale=1.0, power=3.0)
    assert cubic["psi"] == pytest.approx(6.0**1.5, rel=1e-5)


def test_below_epsilon_the_forget_objective_may_rise():
    f1, f2 = trees([1.0, 0.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0])
    walk = dict(goal="tradeoff", epsilon=0.5, unit=2.0, scale=2.0)
    gradient, metrics = epsilon.update(Given(f2, f1, forget=0.1), {}, 0, **walk)
    assert metrics["psi"] == pytest.approx(-0.4)
    assert flat(f1) @ flat(gradient) == pytest.approx(-0.4)
    gradient, _ = epsilon.update(Given(f2, f1, forget=0.9), {}, 0, **walk)
    assert flat(f1) @ flat(gradient) == pytest.approx(0.4), "above it it falls"
    _, metrics = epsilon.update(Given(f2, f1, forget=0.1), {}, 0, power=2.0, **walk)
    assert metrics["psi"] == pytest.approx(-0.08), "the sign stays, whatever the power"


def test_at_an_optimum_nothing_divides_by_zero():
    nothing, f2 = trees([0.0] * 4, [1.0, 2.0, 3.0, 4.0])
    gradient, metrics = epsilon.update(Given(nothing, f2), {}, 0, goal="full_utility")
    assert all(np.isfinite(value) for value in metrics.values())
    np.testing.assert_array_equal(flat(gradient), flat(f2))


@pytest.mark.parametrize("goal", epsilon.GOALS)
def test_the_control_function_is_an_argument(goal):
    f1, f2 = trees([1.0, 2.0, 0.0, 1.0], [-1.0, 0.5, 3.0, -2.0])
    given = Given(f1, f2, retain=0.7) if goal == "full_utility" else Given(f2, f1, forget=0.7)
    for control, psi in (
        ("norm", 0.5 * 6.0),
        ("gap", 0.5 * 0.3 * 6.0),
        ("relative_gap", 0.5 * 0.3 / 0.4 * 6.0),  # without boundaries: relative to epsilon
    ):
        args = dict(goal=goal, epsilon=0.4, scale=0.5, control=control)
        gradient, metrics = epsilon.update(given, {}, 0, **args)
        assert metrics["psi"] == pytest.approx(psi, rel=1e-5)
        assert flat(f1) @ flat(gradient) >= psi - 1e-5
    with pytest.raises(ConfigError, match="Did you mean 'norm'"):
        epsilon.update(given, {}, 0, goal=goal, control="nrom")


def test_where_a_tradeoff_starts_and_ends():
    assert epsilon.bound(goal="tradeoff", epsilon=0.3, r=0.5) == 0.3
    assert epsilon.bound(goal="full_forgetting", epsilon=0.3) == np.inf
    for found in (
        dict(full_forgetting=0.2, full_utility=0.7),
        dict.fromkeys(epsilon.GOALS[1:], np.nan),
    ):
        for r, name in ((0.0, epsilon.GOALS[1]), (0.49, epsilon.GOALS[1]), (0.5, epsilon.GOALS[2])):
            assert epsilon.start(found, goal="tradeoff", r=r, epsilon=0.0) == name
        assert epsilon.start(found, goal="full_forgetting", r=0.5, epsilon=0.0) == ""
    found = dict(full_forgetting=0.2, full_utility=0.7)
    assert epsilon.start(found, goal="tradeoff", r=0.5, epsilon=0.3) == "full_forgetting"
    assert epsilon.start(found, goal="tradeoff", r=0.5, epsilon=0.6) == "full_utility"
    assert epsilon.start({}, goal="tradeoff", r=0.5, epsilon=0.3) == "", "no boundary is known"


def resolved(found, **changes):
    args = dict(goal="tradeoff", r=0.5, epsilon=0.0, unit=0.0, control="")
    return epsilon.resolve(found, **(args | changes))


def test_epsilon_outside_of_the_boundaries_is_refused_with_the_boundaries():
    found = {"full_forgetting": 0.2, "full_utility": 0.7}
    assert resolved(found)["epsilon"] == pytest.approx(0.45)
    assert resolved(found)["unit"] == pytest.approx(0.5)
    assert resolved(found, epsilon=0.3)["epsilon"] == 0.3
    for wrong in (0.1, 0.8):
        with pytest.raises(ConfigError, match=r"epsilon_min = 0.2 .*epsilon_max = 0.7"):
            resolved(found, epsilon=wrong)
    with pytest.raises(ConfigError, match=r"epsilon_min = 0.2 .*epsilon_max = inf"):
        resolved({"full_forgetting": 0.2}, epsilon=0.1)
    with pytest.raises(ConfigError, match="Did you mean 'gap'"):
        resolved(found, control="gp")
    with pytest.raises(ConfigError, match="wrong way round"):
        resolved({"full_forgetting": 0.7, "full_utility": 0.2})
    with pytest.raises(ConfigError, match="boundaries full_forgetting and full_utility"):
        resolved({})
    with pytest.raises(ConfigError, match=r"r=1\.5 is no fraction"):
        resolved(found, r=1.5)
    with pytest.raises(ConfigError, match="Did you mean 'tradeoff'"):
        resolved(found, goal="tradeof")
    assert resolved({}, epsilon=0.3)["epsilon"] == 0.3, "a given bound needs no phase I"
    assert resolved({}, goal="full_forgetting")["goal"] == "full_forgetting"
    with pytest.raises(ConfigError, match=r"epsilon=0\.3 is the bound, so that r=0\.75 has no"):
        resolved(found, epsilon=0.3, r=0.75)
    with pytest.raises(ConfigError, match="epsilon=nan is no value"):
        resolved(found, epsilon=np.nan)
