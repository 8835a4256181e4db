"""Lets one thread judge what another one makes, so that neither waits for the whole of the other.

The thread that makes is the caller's: it alone computes on devices, so that all processes of a run
do so in the same order, and signals reach it. The thread that judges computes on the host.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key")
T = TypeVar("T")


class Stopped(Exception):
    """Ends the thread that judges, because making has failed."""


class Ahead(Generic[Key]):
    """Parts that are made by make(key) when they are needed, or before that during `run`."""

    def __init__(self, make: Callable[[Key], None]):
        self._make, self._changed = make, threading.Condition()
        self._made: set[Key] = set()
        self._judge: threading.Thread | None = None
        self._all_made = self._failed = False

    def need(self, key: Key) -> None:
        """Makes a part that is not made yet; the thread that judges waits until it is made."""
        if threading.current_thread() is self._judge:
            with self._changed:
                self._changed.wait_for(lambda: key in self._made or self._all_made or self._failed)
            if self._failed:
                raise Stopped
            if key in self._made:
                return
        self._make(key)  # by the thread that judges only after all others are made
        self._add(key)

    def run(self, judge: Callable[[], T], keys: Iterable[Key]) -> T:
        """What judge() returns, in a second thread, while this one makes all parts `keys`.

        An exception of judge() is raised here. One of making ends judge() where it needs a part.
        """
        returned: list[T] = []
        raised: list[BaseException] = []

        def work() -> None:
            try:
                returned.append(judge())
            except BaseException as error:
                raised.append(error)

        self._all_made = self._failed = False
        thread = self._judge = threading.Thread(target=work, name="judge", daemon=True)
        thread.start()
        try:
            for key in keys:
                if raised:
                    break
                self._make(key)
                self._add(key)
            self._end(failed=False)
        except BaseException:
            self._end(failed=True)
            raise
        finally:
            thread.join()
            self._judge = None
        if raised:
            raise raised[0]
        return returned[0]

    def _add(self, key: Key) -> None:
        with self._changed:
            self._made.add(key)
            self._changed.notify_all()

    def _end(self, failed: bool) -> None:
        with self._changed:
            self._all_made, self._failed = True, failed
            self._changed.notify_all()
