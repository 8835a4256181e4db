"""The other processes of a run: whether they live, when all of them stop, and leaving together.

The processes of a run wait for each other in almost every operation. One that is gone, or that
stops alone, leaves the others waiting for ever. So each has a thread that tells the others in a
key-value store (lib/store.py):

    beat/RANK       a number that changes every PERIOD_SECONDS; process 0 reads them all
    news/lost       a process whose beat has not changed for LOST_SECONDS: all others end, with
                    EXIT_LOST and one line that names it
    news/stop       the number of the first signal that a process received
    news/in/RANK    after a signal: the phase whose training loop the process is in, or nothing
    news/left/RANK  the exit code of a process that is about to end

After a signal, processes that are all in the training loop of one phase stop at one step, on which
JAX's preemption service agrees, and save their state. In any other case (compiling, evaluating,
auditing) there is nothing to save: all end at once, process 0 last, because JAX aborts the others
when the store is gone. If process 0 itself is lost, that abort is caught (lib/aborts.py).
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from l2l_jax.lib import aborts, signals
from l2l_jax.lib.errors import PeerMissing, Preempted
from l2l_jax.lib.store import Store, connected

if TYPE_CHECKING:
    from l2l_jax.lib.preemption import StopSignal

PERIOD_SECONDS = 1.0
LOST_SECONDS = 18.0  # without a beat
GRACE_SECONDS = 4.0  # for the main thread to end by itself, once it cannot go on
LEAVE_SECONDS = 8.0  # that process 0 waits for the others to end
SURE_SECONDS = LOST_SECONDS + LEAVE_SECONDS + 4.0  # until a loss has ended the process
EXIT_LOST = PeerMissing.exit_code


class Peers:
    """This process among all of a run. stop: that of the run in progress, if there is one."""

    def __init__(self, store: Store) -> None:
        self.stop: StopSignal | None = None
        self._store, self.rank = store, store.rank
        self._beats: dict[int, tuple[str, float]] = {}  # (value, when it changed last)
        self._left: dict[int, int] = {}  # {process that has ended or finished: its exit code}
        self._number = 0  # of the signal that stops the run
        self._agreed = False  # all processes were in one training loop then
        self._since: dict[str, float] = {}
        self._finished, self._leaving = threading.Event(), threading.Lock()

    def begin(self) -> None:
        """Starts the thread, and hears signals from now on if this is the main thread."""
        if signals.in_main_thread():
            self._heard = signals.heard(lambda *_: None, self._hear)
            self._heard.__enter__()  # for the rest of the process
        aborts.catch(self._aborted)
        threading.Thread(target=self._watch, daemon=True, name="peers").start()

    def leave(self, code: int, line: str = "") -> NoReturn:
        """Ends this process with a line on stderr, in order: process 0 after all others."""
        if not self._leaving.acquire(blocking=False):
            threading.Event().wait()  # another thread is about to end the process
        if line:
            signals.tell(line)
        with contextlib.suppress(Exception):  # the store may be gone
            self._store.put(f"news/left/{self.rank}", code)
            if self.rank == 0:
                self._wait_for_others(LEAVE_SECONDS)
                time.sleep(0.3)
        for child in multiprocessing.active_children():  # such as those that read images
            child.terminate()
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)

    def finish(self, code: int = 0) -> None:
        """Waits until all others have finished, too, and disconnects. With a code: leaves."""
        if self._finished.is_set():
            return
        if code:
            self.leave(code)
        self._store.put(f"news/left/{self.rank}", 0)
        self._wait_for_others()  # the thread ends the process if one of them fails
        self._finished.set()
        import jax

        jax.distributed.shutdown()

    def _wait_for_others(self, seconds: float = float("inf")) -> None:
        end = time.monotonic() + seconds
        while len(self._left) < self._store.count and time.monotonic() < end:
            self._left = self._store.left()
            time.sleep(0.1)

    def _hear(self, number: int, count: int) -> None:
        self._store.put_first("news/stop", number)
        if number == signal.SIGINT and count > 1:
            self.leave(128 + number, f"{self._preempted(number)} (It ended at once.)")

    def _preempted(self, number: int) -> Preempted:
        return Preempted(number, self.stop.saved if self.stop else "")

    def _watch(self) -> None:
        beat = 0
        while not self._finished.wait(PERIOD_SECONDS):
            beat += 1
            try:
                self._store.put(f"beat/{self.rank}", beat)
                if self.rank == 0:
                    self._look_for_lost(self._store.get("beat"))
                news = self._store.get("news")
            except Exception:  # of any kind: process 0 does not answer
                if not self._finished.is_set():
                    self._lose(0)
                return
            self._act(news)

    def _look_for_lost(self, beats: dict[str, str]) -> None:
        now = time.monotonic()
        for rank in range(self._store.count):
            value = beats.get(str(rank), "")
            if rank not in self._beats or value != self._beats[rank][0]:
                self._beats[rank] = value, now
            elif now - self._beats[rank][1] > LOST_SECONDS and rank not in self._left:
                self._store.put_first("news/lost", rank)
                self._store.put(f"news/left/{rank}", EXIT_LOST)  # nobody waits for it

    def _act(self, news: dict[str, str]) -> None:
        self._left = self._store.left(news)
        if "lost" in news:
            self._lose(int(news["lost"]))
        if "stop" in news:
            self._stop_together(int(news["stop"]), news)
        for rank, code in self._left.items():
            if code and rank != self.rank and self._waited(f"left {rank}"):
                if self._number and code == 128 + self._number:
                    self.leave(code, str(self._preempted(self._number)))
                self.leave(code, f"process {rank} ended with exit code {code}; its log says why.")

    def _stop_together(self, number: int, news: dict[str, str]) -> None:
        if not self._number:
            self._number = number
            self._store.put(f"news/in/{self.rank}", self.stop.saving if self.stop else "")
        phases = [phase for key, phase in news.items() if key.startswith("in/")]
        if not self._agreed and len(phases) == self._store.count:
            if not (self.stop and phases[0] and len(set(phases)) == 1):
                self.leave(128 + number, str(self._preempted(number)))
            self._agreed, self.stop.raised, self.stop.number = True, True, number
            signals.tell(f"{Preempted.NAMES[number]}: {signals.SAVING}")
            self._store.notify_preemption()
        outside = self._agreed and not (self.stop and self.stop.saving)
        if outside and self._waited("outside"):  # the loop had ended before it could stop
            self.leave(128 + number, str(self._preempted(number)))

    def _waited(self, what: str) -> bool:
        """Whether GRACE_SECONDS have passed since the first call with this argument."""
        return time.monotonic() - self._since.setdefault(what, time.monotonic()) > GRACE_SECONDS

    def _lose(self, rank: int) -> NoReturn:
        aborts.late_lines(shown=False)
        known = self._left.get(0) if rank == 0 else None
        self.leave(known or EXIT_LOST, "" if known else self._lost(rank))

    def _lost(self, rank: int) -> str:
        saved = f"{self.stop.saved}; " if self.stop and self.stop.saved else ""
        return (
            f"error: process {rank} of {self._store.count} is lost: it does not answer any more; "
            f"{saved}run the same command again on all hosts to continue."
        )

    def _aborted(self) -> int | None:
        """The exit code if JAX aborts this process because process 0 is gone; tells the user."""
        if self.rank == 0 or self._finished.is_set() or aborts.answers(self._store.address):
            return None
        code = self._left.get(0, EXIT_LOST)
        if code == EXIT_LOST:
            signals.tell(self._lost(0))
        return code


_joined: list[Peers] = []  # the one of this process


def joined() -> Peers | None:
    """This process among several, and its thread; None if the run has one process only."""
    if not _joined and (store := connected()):
        _joined.append(peers := Peers(store))
        peers.begin()
        atexit.register(lambda: peers.finish(int(hasattr(sys, "last_type"))))
    return _joined[0] if _joined else None
