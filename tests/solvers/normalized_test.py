"""The normalized solver: the forget gradient has the length that its arguments give."""

import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib.errors import ConfigError
from l2l_jax.solvers import normalized

RETAIN = {"a": np.array([3.0, 0.0], np.float32), "b": np.array([0.0, 4.0], np.float32)}  # length 5
FORGET = {"a": np.array([0.0, -2.0], np.float32), "b": np.array([1.0, 2.0], np.float32)}  # 3
NOTHING = {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}


class Given:
    """Objectives with two fixed gradients; their values are 2 and -6."""

    def __init__(self, retain=RETAIN, forget=FORGET):
        self.pair = retain, forget

    def gradients(self, student, *weights):
        assert weights == ((1.0, 0.0), (0.0, 1.0))
        values = {"retain": 2.0, "forget": -6.0, "own": 7.0}
        return list(self.pair), {name: jnp.float32(value) for name, value in values.items()}


def update(given=None, **args):
    return normalized.update(given or Given(), {}, 0, **args)


def times(number, tree):
    return {name: np.float32(number) * leaf for name, leaf in tree.items()}


def flat(tree):
    return np.concatenate([tree["a"], tree["b"]])


def pushed(gradient, retain=RETAIN):
    """What the forget objective adds to the retain gradient."""
    return flat(gradient) - flat(retain)


@pytest.mark.parametrize(
    ("args", "length"),
    [({}, 0.5), (dict(share=0.4), 2.0), (dict(norm=7.5), 7.5), (dict(share=0.4, norm=7.5), 7.5)],
)
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_forget_gradient_has_its_length_whatever_it_was(args, length, size):
    gradient, metrics = update(Given(forget=times(size, FORGET)), **args)
    np.testing.assert_allclose(pushed(gradient), length / 3 * flat(FORGET), rtol=1e-5, atol=1e-6)
    assert metrics["scale"] == pytest.approx(length / (3 * size), rel=1e-5)


def test_a_share_follows_the_retain_gradient_and_a_norm_does_not():
    longer = times(10, RETAIN)
    gradient, _ = update(Given(retain=longer), share=0.4)
    assert np.linalg.norm(pushed(gradient, longer)) == pytest.approx(20, rel=1e-5)
    gradient, _ = update(Given(retain=longer), norm=7.5)
    assert np.linalg.norm(pushed(gradient, longer)) == pytest.approx(7.5, rel=1e-5)


def test_metrics_say_what_was_done():
    _, metrics = update(share=0.3)
    expected = {"retain": 2, "forget": -6, "own": 7, "scale": 0.5, "loss": 2 + 0.5 * -6,
                "retain_norm": 5, "forget_norm": 3}  # fmt: skip
    assert metrics == {name: pytest.approx(value) for name, value in expected.items()}


@pytest.mark.parametrize("args", [{}, dict(norm=7.5)])
def test_where_nothing_is_to_be_forgotten_the_retain_gradient_stays(args):
    gradient, metrics = update(Given(forget=NOTHING), **args)
    np.testing.assert_array_equal(flat(gradient), flat(RETAIN))
    assert metrics["scale"] == 0
    assert metrics["loss"] == 2
    gradient, _ = update(Given(NOTHING, NOTHING), **args)
    np.testing.assert_array_equal(flat(gradient), 0)


def test_without_a_retain_gradient_the_share_is_one_of_the_forget_gradient():
    gradient, metrics = update(Given(retain=NOTHING), share=0.3)
    np.testing.assert_allclose(flat(gradient), 0.3 * flat(FORGET), rtol=1e-6)
    assert metrics["scale"] == pytest.approx(0.3)
    gradient, _ = update(share=0.0)
    np.testing.assert_array_equal(flat(gradient), flat(RETAIN))


@pytest.mark.parametrize("args", [dict(share=-0.1), dict(norm=-1.0), dict(share=float("nan"))])
def test_negative_lengths_are_refused(args):
    with pytest.raises(
        ConfigError, match=r"normalized: share=.* are lengths of the forget gradient"
    ):
        update(**args)
