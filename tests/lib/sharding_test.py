"""The mesh: which device holds which rows, for any order of the devices."""

from types import SimpleNamespace

import jax
import numpy as np

from l2l_jax.lib import sharding, trees


def test_devices_are_sorted_by_host(monkeypatch):
    """JAX orders TPU devices by their wiring, but a host reads consecutive rows of a batch."""
    monkeypatch.setattr(sharding, "Mesh", lambda grid, *_, **__: SimpleNamespace(devices=grid))
    devices = [SimpleNamespace(process_index=i % 2, id=7 - i) for i in range(8)]
    mesh = sharding.make_mesh(fsdp=2, devices=devices)
    assert mesh.devices.shape == (4, 2)
    assert [device.process_index for device in mesh.devices.flat] == [0] * 4 + [1] * 4
    for host in np.split(mesh.devices.ravel(), 2):
        assert [device.id for device in host] == sorted(device.id for device in host)


def test_a_host_reads_the_rows_that_its_devices_hold():
    mesh = sharding.make_mesh(fsdp=2, devices=jax.devices()[::-1])
    rows = np.arange(16)
    placed = jax.device_put(rows, sharding.batch_sharding(mesh))
    first_rows = {shard.device.id: shard.index[0].start or 0 for shard in placed.addressable_shards}
    assert [first_rows[key] for key in sorted(first_rows)] == list(range(0, 16, 2))


def test_an_inner_product_does_not_gather_sharded_arrays():
    mesh = sharding.make_mesh(fsdp=4)
    tree = {"a": np.ones((3, 3, 64, 128), np.float32), "b": np.ones((2048, 8), np.float32)}
    placed = sharding.place(tree, sharding.parameter_shardings(mesh, tree))
    compiled = jax.jit(trees.dot).lower(placed, placed).compile()
    assert "all-gather" not in compiled.as_text()
    assert "all-reduce" in compiled.as_text()
    assert compiled(placed, placed) == 3 * 3 * 64 * 128 + 2048 * 8


def test_rows_are_split_only_on_a_mesh_that_divides_them():
    mesh = sharding.make_mesh(fsdp=4)

    def text(rows, function):
        return str(jax.make_jaxpr(function)(np.zeros((rows, 3))))

    for rows, where, constrained in (
        (16, sharding.on(mesh, sharding.split_rows), True),
        (12, sharding.on(mesh, sharding.split_rows), False),
        (16, sharding.split_rows, False),
        (
            16,
            sharding.on(sharding.make_mesh(devices=jax.devices()[:1]), sharding.split_rows),
            False,
        ),
        (16, sharding.on(mesh, sharding.whole), True),
        (16, sharding.whole, False),
    ):
        assert ("sharding_constraint" in text(rows, where)) == constrained, (rows, where)
