"""Agreement and communication between the processes of a run; no cost for a single process."""

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from l2l_jax.lib.errors import ConfigError, UserError


def is_main() -> bool:
    """Whether this is process 0, the one that writes files."""
    return jax.process_index() == 0


def single_process() -> bool:
    """Whether the run has one process only."""
    return jax.process_count() == 1


def ranks_where(flag: bool) -> list[int]:
    """Ranks of the processes in which the flag is True; the same list in every process."""
    if single_process():
        return [0] if flag else []
    from jax.experimental import multihost_utils

    return np.flatnonzero(multihost_utils.process_allgather(np.array(flag))).tolist()


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """Raises in every process if one process raises an error for the user inside the block.

    Otherwise the other processes would wait for it forever. A process without an error of its own
    raises ConfigError. The block itself must not communicate with other processes.
    """
    own_error = None
    try:
        yield
    except UserError as error:
        own_error = error
    failed = ranks_where(own_error is not None)
    if own_error:
        raise own_error
    if failed:
        raise ConfigError(f"Processes {failed} cannot begin; their own messages say why.")


def from_main(value: Any) -> Any:
    """The value of process 0 (a pytree of arrays or numbers), in every process."""
    if single_process():
        return value
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(value)


def bytes_from_main(value: bytes) -> bytes:
    """The bytes of process 0, in every process."""
    size = int(from_main(len(value)))
    padded = np.zeros(size, np.uint8)
    if is_main():
        padded[:] = np.frombuffer(value, np.uint8)
    return np.asarray(from_main(padded)).tobytes()


def json_from_main(value: Any) -> Any:
    """The JSON value of process 0, in every process; as it is for a single process."""
    if single_process():
        return value
    return json.loads(bytes_from_main(json.dumps(value).encode()))


def arrays_from_main(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of process 0, in every process; others need not know their shapes."""
    if single_process():
        return dict(arrays)
    file = io.BytesIO()
    if is_main():
        np.savez(file, allow_pickle=False, **arrays)
    with np.load(io.BytesIO(bytes_from_main(file.getvalue()))) as found:
        return dict(found)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def disagreeing(array: np.ndarray) -> list[int]:
    """Ranks of the processes whose array differs from that of this process."""
    if single_process():
        return []
    from jax.experimental import multihost_utils

    gathered = multihost_utils.process_allgather(array)
    return [rank for rank, other in enumerate(gathered) if not np.array_equal(other, array)]


def gather(tree: Any) -> Any:
    """The tree with whole NumPy arrays, in every process, however they are sharded."""
    if single_process():
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


def barrier(name: str) -> None:
    """Waits until every process has reached the barrier of this name."""
    if not single_process():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
