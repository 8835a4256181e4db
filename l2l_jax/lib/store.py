"""The key-value store of jax.distributed: short texts that all processes of a run see.

The store is in process 0. Every function raises if it cannot be reached.
"""

import contextlib
import datetime
import sys
from collections.abc import Mapping
from typing import Any

ROOT = "l2l_jax"
NOTICE = "RECEIVED_PREEMPTION_NOTICE"  # the key by which JAX's preemption service hears of a signal


class Store:
    """The store as one process sees it. rank: of count processes; address: of process 0."""

    def __init__(self, client: Any, rank: int, count: int, address: str) -> None:
        self.rank, self.count, self.address, self._client = rank, count, address, client

    def put(self, key: str, value: object) -> None:
        """Writes a value, or replaces it."""
        self._client.key_value_set(f"{ROOT}/{key}", str(value), True)

    def put_first(self, key: str, value: object) -> None:
        """Writes a value unless there is one."""
        with contextlib.suppress(Exception):
            self._client.key_value_set(f"{ROOT}/{key}", str(value))

    def get(self, folder: str) -> dict[str, str]:
        """{key below the folder: value}."""
        pairs = self._client.key_value_dir_get(f"{ROOT}/{folder}/")
        return {key.split("/", 2)[2]: value for key, value in pairs}

    def left(self, news: Mapping[str, str] | None = None) -> dict[int, int]:
        """{process that is about to end, or has finished: its exit code}.

        news: get("news"), if that is known already.
        """
        found = self.get("news") if news is None else news
        codes = {key: code for key, code in found.items() if key.startswith("left/")}
        return {int(key.split("/")[1]): int(code) for key, code in codes.items()}

    def notify_preemption(self) -> None:
        """Lets JAX's preemption service choose a step, as a signal to this process would."""
        now = datetime.datetime.now(datetime.UTC).isoformat()
        with contextlib.suppress(Exception):  # another process was first
            self._client.key_value_set(NOTICE, now)


def connected() -> Store | None:
    """The store if this is one of several processes, after jax.distributed.initialize."""
    jax = sys.modules.get("jax")
    if not jax or not jax.distributed.is_initialized():
        return None
    from jax._src.distributed import global_state as state  # the store is nowhere else

    if state.num_processes == 1:
        return None
    return Store(
        state.client, state.process_id, state.num_processes, str(state.coordinator_address)
    )
