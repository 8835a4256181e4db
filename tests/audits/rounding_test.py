"""The changes of the audit `precision`, on numbers whose result is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.audits import precision
from l2l_jax.lib.errors import ConfigError

GROUPS = {"encoder": {"kernel": jnp.array([[7.0, -1.4], [2.4, 0.3], [-3.6, 0.5]]),
                      "bias": jnp.array([0.123456789])}}  # fmt: skip


def kernel(groups):
    return np.asarray(groups["encoder"]["kernel"])


def test_four_bits_have_fifteen_levels_for_each_column():
    rounded = precision.all_rounded(GROUPS, "int4")
    np.testing.assert_allclose(kernel(rounded), [[7, -1.4], [2, 0.4], [-4, 0.4]], atol=1e-6)
    assert rounded["encoder"]["bias"] == GROUPS["encoder"]["bias"], "biases stay as they are"


def test_bfloat16_keeps_eight_bits():
    rounded = precision.all_rounded({"encoder": {"kernel": jnp.array([[1 + 1 / 512, 1 + 1 / 64]])}},
                                    "bfloat16")  # fmt: skip
    assert kernel(rounded).tolist() == [[1.0, 1 + 1 / 64]]


def test_pruning_removes_the_smallest_and_mixing_goes_between():
    pruned = precision.all_pruned(GROUPS, 0.5)
    np.testing.assert_allclose(kernel(pruned), [[7, 0], [2.4, 0], [-3.6, 0]], atol=1e-6)
    other = {"encoder": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(1)}}
    np.testing.assert_allclose(
        kernel(precision.mix(GROUPS, other, 0.25)), 0.75 * kernel(GROUPS), rtol=1e-6
    )


def test_an_unknown_rounding_is_refused():
    with pytest.raises(ConfigError, match="no rounding to 'int2'"):
        precision.all_rounded(GROUPS, "int2")
