"""Makes the items of an iterator in a second thread, before they are taken."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Yields the same items in the same order; at most `depth` are made and not yet taken.

    An exception of `items` is raised where its item would be taken. Closing the generator ends the
    thread once the item that it makes is made, and closes `items` if it can be closed.
    """
    room, made, ended = threading.Semaphore(depth), queue.SimpleQueue(), threading.Event()

    def make() -> None:
        try:
            while room.acquire() and not ended.is_set():
                made.put((next(items), None))
        except BaseException as error:
            made.put((None, error))

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error:
                raise error
            room.release()
            yield item
    finally:
        ended.set()
        room.release()
        thread.join()
        close: Any = getattr(items, "close", None)
        if close:
            close()
