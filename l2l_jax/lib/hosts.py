"""Several processes as one: who is first, what all agree on. One process pays nothing for it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from l2l_jax.lib.errors import ConfigError, Explained


def is_main() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


def single_process() -> bool:
    return jax.process_count() == 1


def any_process(flag: bool) -> bool:
    """Whether any process says so; every process gets the same answer."""
    return bool(ranks_where(flag))


def ranks_where(flag: bool) -> list[int]:
    """Ranks of the processes that say so."""
    if single_process():
        return [0] if flag else []
    from jax.experimental import multihost_utils

    return np.flatnonzero(multihost_utils.process_allgather(np.array(flag))).tolist()


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """What one process refuses in this block all refuse, so that none is left waiting.

    The block itself must ask the others nothing.
    """
    refusal = None
    try:
        yield
    except Explained as error:
        refusal = error
    refusing = ranks_where(refusal is not None)
    if refusal:
        raise refusal
    if refusing:
        raise ConfigError(f"Processes {refusing} cannot begin; their own messages say why.")


def from_main(value: Any) -> Any:
    """The first process's value (a pytree of arrays or numbers), on every process."""
    if single_process():
        return value
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(value)


def disagreeing(words: np.ndarray) -> list[int]:
    """Ranks of the processes that hold another array than this one."""
    if single_process():
        return []
    from jax.experimental import multihost_utils

    heard = multihost_utils.process_allgather(words)
    return [rank for rank, other in enumerate(heard) if not np.array_equal(other, words)]


def gather(tree: Any) -> Any:
    """Whole arrays as NumPy on every process, however they are sharded."""
    if single_process():
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


def barrier(name: str) -> None:
    """No process passes before all have come."""
    if not single_process():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
