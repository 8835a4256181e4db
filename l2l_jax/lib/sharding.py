"""One mesh, one small rule. Batches are split over every device, large arrays over "fsdp"."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Params

MIN_SIZE = 2**10  # smaller arrays are kept whole on every device


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh ("data", "fsdp") over all devices; fsdp=-1 shards parameters over all of them.

    In the order of their processes, so that rows of a batch lie in the order of the hosts that read
    them; jax.make_mesh would take a TPU's devices in the order of its wires.
    """
    devices = jax.devices() if devices is None else devices
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    count = len(devices)
    fsdp = count if fsdp == -1 else fsdp
    if fsdp < 1 or count % fsdp:
        fits = [n for n in range(1, count + 1) if count % n == 0]
        raise ConfigError(
            f"runtime.fsdp={fsdp} does not divide {count} devices; try one of {fits}."
        )
    grid = np.array(devices).reshape(count // fsdp, fsdp)
    return Mesh(grid, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def batch(mesh: Mesh) -> NamedSharding:
    """The first axis over all devices."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def microbatch(mesh: Mesh) -> NamedSharding:
    """[accumulate, rows, ...]: the rows over all devices."""
    return NamedSharding(mesh, P(None, ("data", "fsdp")))


def parameters(mesh: Mesh, abstract: Params) -> Params:
    """Each large array over "fsdp" along its longest axis that divides; the rest replicated."""
    shards = mesh.shape["fsdp"]

    def rule(leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [i for i, n in enumerate(leaf.shape) if n % shards == 0]
        if shards == 1 or leaf.size < MIN_SIZE or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda i: leaf.shape[i])
        return NamedSharding(mesh, P(*[None] * longest, "fsdp"))

    return jax.tree.map(rule, abstract)


def abstract(mesh: Mesh, tree: Params) -> Params:
    """The same tree of shapes, each with its sharding: what a checkpoint is restored onto."""

    def leaf(x: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree, parameters(mesh, tree))


def place(tree: Params, shardings: Params) -> Params:
    """Host arrays onto the mesh; every process must hold the same values."""

    def put(leaf: np.ndarray, sharding: NamedSharding) -> jax.Array:
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, tree, shardings)


def check_batch(size: int, mesh: Mesh, accumulate: int, name: str) -> None:
    """ConfigError unless `size` splits over the devices and the accumulation steps."""
    unit = mesh.size * accumulate
    if size % unit or size < unit:
        down = size - size % unit
        near = f"{down} or {down + unit}" if down else f"{unit}"
        over = f"{mesh.size} device{'s' * (mesh.size > 1)}"
        times = f" x {accumulate} accumulation steps" if accumulate > 1 else ""
        raise ConfigError(f"{name}={size} cannot be split over {over}{times}; try {near}.")
