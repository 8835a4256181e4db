"""The device mesh: batches are split over all devices, large parameters over the axis "fsdp"."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Array, Params

MIN_SHARDED_SIZE = 2**10  # values; smaller arrays are replicated

Tree = TypeVar("Tree")  # a pytree of arrays
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def make_mesh(fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh with axes ("data", "fsdp") over all devices.

    fsdp: size of the second axis; -1: all devices. Devices are sorted by process, so that a batch
    has its rows in the order of the hosts that read them; jax.make_mesh would sort a TPU's devices
    by its topology. ConfigError unless fsdp divides the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    count = len(devices)
    fsdp = count if fsdp == -1 else fsdp
    if fsdp < 1 or count % fsdp:
        divisors = [n for n in range(1, count + 1) if count % n == 0]
        raise ConfigError(
            f"runtime.fsdp={fsdp} does not divide {count} devices; try one of {divisors}."
        )
    grid = np.array(devices).reshape(count // fsdp, fsdp)
    return Mesh(grid, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole arrays on every device."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Arrays [rows, ...]: the rows split over all devices."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def microbatch_sharding(mesh: Mesh) -> NamedSharding:
    """Arrays [accumulate, rows, ...]: the rows split over all devices."""
    return NamedSharding(mesh, P(None, ("data", "fsdp")))


def on(mesh: Mesh, function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, traced so that the models in it know the mesh; see split_rows."""

    @functools.wraps(function)
    def traced(*args: Arguments.args, **named: Arguments.kwargs) -> Result:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **named)

    return traced


def split_rows(tree: Tree) -> Tree:
    """The arrays [rows, ...] of a tree, the rows split over all devices of the mesh of `on`.

    Models call it on what goes into and comes out of their blocks: where parameters are split, XLA
    would else be free to gather the activations of the whole batch in place of the parameters.
    Outside `on`, and for rows that the devices do not divide, the tree as it is.
    """
    mesh = jax.sharding.get_abstract_mesh()

    def split(x: Any) -> Any:
        if not x.ndim or x.shape[0] % mesh.size:
            return x
        return jax.lax.with_sharding_constraint(x, P(mesh.axis_names))

    return tree if mesh.empty or mesh.size == 1 else jax.tree.map(split, tree)


def whole(x: Array | np.ndarray) -> Array:
    """A parameter, gathered on every device of the mesh of `on`; outside it as it is.

    For tables in which rows are looked up: a lookup in a table that is split would move the
    activations of the whole batch.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return jnp.asarray(x)
    return jax.lax.with_sharding_constraint(jnp.asarray(x), P())


def parameter_shardings(mesh: Mesh, abstract: Any) -> Params:
    """The sharding of each parameter, as a tree; abstract: arrays or jax.ShapeDtypeStruct.

    A large array is split over "fsdp" along its longest axis that this divides, others replicated.
    """
    shards = mesh.shape["fsdp"]

    def rule(leaf: Any) -> NamedSharding:
        axes = [i for i, n in enumerate(leaf.shape) if n % shards == 0]
        if shards == 1 or leaf.size < MIN_SHARDED_SIZE or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda i: leaf.shape[i])
        return NamedSharding(mesh, P(*[None] * longest, "fsdp"))

    return jax.tree.map(rule, abstract)


def abstract_tree(mesh: Mesh, tree: Tree) -> Tree:
    """The tree as jax.ShapeDtypeStruct with shardings, the target of restoring a checkpoint."""

    def leaf(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree, parameter_shardings(mesh, tree))


def place(tree: Tree, shardings: Any) -> Tree:
    """Arrays of the host, placed with these shardings; every process must hold equal values."""

    def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, tree, shardings)


def check_batch(size: int, mesh: Mesh, accumulate: int, name: str) -> None:
    """ConfigError unless the batch size, the config key `name`, splits over devices and steps.

    accumulate: the number of accumulation steps of an update.
    """
    unit = mesh.size * accumulate
    if size % unit or size < unit:
        smaller = size - size % unit
        advice = f"{smaller} or {smaller + unit}" if smaller else f"{unit}"
        devices = f"{mesh.size} device{'s' * (mesh.size > 1)}"
        steps = f" x {accumulate} accumulation steps" if accumulate > 1 else ""
        raise ConfigError(f"{name}={size} cannot be split over {devices}{steps}; try {advice}.")
