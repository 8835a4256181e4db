"""Items that a second thread makes beforehand: order, depth, errors and the end."""

import itertools
import threading

import pytest

from l2l_jax.lib.ahead import ahead


def test_the_items_are_the_same_and_end():
    assert list(ahead(iter(range(7)), 2)) == list(range(7))


def test_two_items_are_made_before_they_are_taken_and_no_third():
    made, second, third = [], threading.Event(), threading.Event()

    def items():
        for number in itertools.count():
            made.append(number)
            {2: second, 3: third}.get(len(made), threading.Event()).set()
            yield number

    stream = ahead(items(), 2)
    assert next(stream) == 0  # while it is used, two more are made
    assert third.wait(10), "two items are made beforehand"
    assert not threading.Event().wait(0.2)
    assert made == [0, 1, 2]
    stream.close()


def test_an_error_comes_where_its_item_would():
    def items():
        yield 0
        raise OSError("broken")

    stream = ahead(items(), 3)
    assert next(stream) == 0
    with pytest.raises(OSError, match="broken"):
        next(stream)


def test_closing_ends_the_thread_and_the_items():
    closed = []

    def items():
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    stream = ahead(items(), 2)
    next(stream)
    stream.close()
    assert closed == [True]
    assert "ahead" not in {thread.name for thread in threading.enumerate()}
