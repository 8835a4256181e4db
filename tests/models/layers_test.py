"""Shared layers: which attention is chosen where, and that the choices agree."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib import flops, optim, precision
from l2l_jax.models.layers import attention, positions
from l2l_jax.models.layers.attention import implementation
from l2l_jax.solvers import conflict_free, uno
from tests.solvers.toys import Quadratics


@pytest.mark.parametrize(
    ("backend", "capability", "dtype", "head", "masked", "chosen"),
    [
        ("gpu", "9.0", jnp.bfloat16, 64, False, "cudnn"),
        ("gpu", "8.0", jnp.float16, 80, False, "cudnn"),
        ("gpu", "9.0", jnp.bfloat16, 64, True, "xla"),
        ("gpu", "9.0", jnp.float32, 64, False, "xla"),
        ("gpu", "9.0", jnp.bfloat16, 63, False, "xla"),
        ("gpu", "9.0", jnp.bfloat16, 512, False, "xla"),
        ("gpu", "7.5", jnp.bfloat16, 64, False, "xla"),
        ("gpu", "gfx90a", jnp.bfloat16, 64, False, "xla"),
        ("tpu", "", jnp.bfloat16, 64, False, "xla"),
        ("cpu", "", jnp.bfloat16, 64, False, "xla"),
    ],
)
def test_cudnn_is_chosen_where_it_may(
    backend, capability, dtype, head, masked, chosen, monkeypatch
):
    pretend(monkeypatch, backend, capability)
    assert implementation(jnp.dtype(dtype), head, masked) == chosen


def test_what_is_differentiated_twice_has_no_fused_kernel(monkeypatch):
    pretend(monkeypatch, "gpu", "9.0")
    chosen, seen = (jnp.dtype(jnp.bfloat16), 64, False), []

    class Seen(Quadratics):
        def gradients(self, student, *weights):
            seen.append(implementation(*chosen))
            return super().gradients(student, *weights)

    start = {"x": jnp.ones(3)}
    uno.update(Seen(), start, 0)
    conflict_free.update(Seen(), start, 0)
    assert seen == ["xla", "xla", "cudnn"], "the last is differentiated once, at theta'"
    tx, _ = optim.make_optimizer(steps=1, lr=1.0, name="sophia")
    tx.update(
        start, tx.init(start), start, direction=lambda x: Seen().gradients(x, (1.0, 0.0))[0][0]
    )
    assert seen[-1] == "xla"
    assert implementation(*chosen) == "cudnn"


def pretend(monkeypatch, backend, capability):
    device = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "devices", lambda: [device])


@pytest.mark.parametrize(
    ("backend", "capability", "dtype"),
    [("gpu", "9.0", "bfloat16"), ("gpu", "7.0", "float32"), ("tpu", "", "bfloat16"),
     ("cpu", "", "float32")],
)  # fmt: skip
def test_auto_is_half_where_the_hardware_has_it(backend, capability, dtype, monkeypatch):
    pretend(monkeypatch, backend, capability)
    assert jnp.dtype(precision.compute_dtype("auto")) == dtype


def test_counting_sees_plain_products_only(monkeypatch):
    pretend(monkeypatch, "gpu", "9.0")
    q = jnp.ones((2, 6, 4, 8), jnp.bfloat16)
    assert flops.count(attention.attention, q, q, q) == 2 * (2 * 4 * 6 * 6 * 8) * 2


def test_attention_is_the_formula():
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 5, 3, 8))
    attend = jnp.array([[True, True, False, True, False], [True] * 5])
    weights = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(8)
    weights = np.where(np.asarray(attend)[:, None, None], weights, -np.inf)
    weights = np.exp(weights - weights.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bhqk,bkhd->bqhd", weights, v)
    np.testing.assert_allclose(attention.attention(q, k, v, attend), expected, atol=1e-5)


def test_positions_need_room_for_four_parts():
    with pytest.raises(ValueError, match="divisible by 4"):
        positions.sincos_2d(10, 4, True)
    with pytest.raises(ValueError, match="square grid"):
        positions.resize(jnp.zeros((12, 8)), 4)
