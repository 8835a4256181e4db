"""A trace of a few steps for TensorBoard's profiler, and how much memory was needed."""

import resource
from pathlib import Path
from typing import Any

import jax


class Profile:
    """Traces `count` steps from step `first` on, or from where a launch begins if that is later."""

    def __init__(self, folder: Path, first: int, count: int, begin: int):
        self._folder, self._first = folder, max(first, begin)
        self._end = self._first + count
        self._running = False

    def before(self, step: int, state: Any) -> None:
        """Call before each step is dispatched, with what the last one returned."""
        if self._running and step >= self._end:
            self.stop(state)
        if step == self._first < self._end:
            jax.block_until_ready(state)
            options = jax.profiler.ProfileOptions()
            # Ending a trace of Python while other threads save a checkpoint has crashed (jax 0.10).
            options.python_tracer_level = 0
            jax.profiler.start_trace(str(self._folder), profiler_options=options)
            self._running = True

    def stop(self, state: Any) -> None:
        """Ends a running trace once its last step has run; call at the end in any case."""
        if self._running:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._running = False


def peak_memory(before: int = 0) -> int:
    """Bytes, at most so far: of the fullest device, or of this process where devices do not say.

    before: what earlier launches came to.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    device = max(found.get("peak_bytes_in_use", 0) for found in stats)
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return max(before, device or process)
