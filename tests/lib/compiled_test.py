"""What is read from the text of compiled programs, where it is known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from l2l_jax.lib import compiled, sharding


def text_of(function, *shapes, out=None):
    mesh = sharding.make_mesh(fsdp=8)
    given = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=jax.NamedSharding(mesh, spec))
        for shape, spec in shapes
    ]
    placed = jax.NamedSharding(mesh, out or P())
    return jax.jit(function, out_shardings=placed).lower(*given).compile().as_text()


def test_products_in_a_loop_count_as_often_as_it_runs():
    def five(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=5)[0]

    text = text_of(five, ((16, 32), P("fsdp")), ((32, 32), P()), out=P("fsdp"))
    assert compiled.flops(text) == 5 * 2 * 16 * 32 * 32 / 8
    assert not compiled.collectives(text)


def test_a_convolution_counts_all_its_products():
    def conv(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    text = text_of(conv, ((8, 6, 6, 4), P("fsdp")), ((3, 3, 4, 8), P()), out=P("fsdp"))
    assert compiled.flops(text) == 2 * 6 * 6 * 8 * 3 * 3 * 4


@pytest.mark.parametrize("loops", [1, 3])
def test_a_gathered_parameter_is_a_collective_of_its_bytes(loops):
    def function(x, w):
        def body(x, w):
            gathered = jax.lax.with_sharding_constraint(x @ w, jax.NamedSharding(mesh, P("fsdp")))
            return gathered, None

        return jax.lax.scan(body, x, w)[0]

    mesh = sharding.make_mesh(fsdp=8)
    split = P(None, None, "fsdp")
    text = text_of(function, ((800, 64), P("fsdp")), ((loops, 64, 64), split), out=P("fsdp"))
    found = compiled.collectives(text)
    assert compiled.total_bytes(found) == {"all-gather": loops * 64 * 64 * 4}


def test_a_sum_over_devices_is_found_with_its_bytes():
    text = text_of(lambda x: x.T @ x, ((64, 32), P("fsdp")))
    (found,) = compiled.collectives(text)
    assert (found.kind, found.bytes, found.looped) == ("all-reduce", 32 * 32 * 4, False)
