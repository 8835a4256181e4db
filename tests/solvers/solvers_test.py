"""The solvers pcgrad and weighted where the answer is known, and their formulas on vectors."""

import jax
import numpy as np
import pytest

from l2l_jax.lib.errors import ConfigError
from l2l_jax.solvers import pcgrad, weighted
from tests.solvers.toys import Given, descend, flat, trees

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
