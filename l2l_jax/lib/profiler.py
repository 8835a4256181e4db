"""A trace of a few steps for TensorBoard's profiler, and the peak memory."""

import resource
from pathlib import Path
from typing import Any

import jax


class Profile:
    """Traces `count` steps into `folder`, from step `first` on, or from `begin` if that is later.

    begin: the first step of this launch.
    """

    def __init__(self, folder: Path, first: int, count: int, begin: int):
        self._folder, self._first = folder, max(first, begin)
        self._end = self._first + count
        self._running = False

    def before(self, step: int, state: Any) -> None:
        """Starts or ends the trace; to be called before each step, with the result of the last."""
        if self._running and step >= self._end:
            self.stop(state)
        if step == self._first < self._end:
            jax.block_until_ready(state)
            options = jax.profiler.ProfileOptions()
            # Ending a trace of Python while other threads save a checkpoint crashes with jax 0.10.
            options.python_tracer_level = 0
            jax.profiler.start_trace(str(self._folder), profiler_options=options)
            self._running = True

    def stop(self, state: Any) -> None:
        """Waits for `state` and ends the trace, if one is running; to be called after the loop."""
        if self._running:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._running = False


def peak_memory(before: int = 0) -> int:
    """Largest number of bytes in use so far, of any local device or in an earlier launch.

    Where devices do not report their memory, e.g. on CPUs, that of this process. before: the
    maximum of earlier launches.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    device = max(each.get("peak_bytes_in_use", 0) for each in stats)
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return max(before, device or process)
