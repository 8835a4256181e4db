"""Judging in a second thread: it overlaps with making, and an error of either side ends both."""

import threading

import pytest

from l2l_jax.engine.judging import Ahead

SECONDS = 10  # after which a test that waits for the other thread fails


def test_the_next_part_is_made_while_one_is_judged():
    second = threading.Event()
    ahead = Ahead[int](lambda key: second.set() if key == 2 else None)

    def judge():
        ahead.need(1)
        return second.wait(SECONDS)

    assert ahead.run(judge, [1, 2]) is True


def test_only_the_thread_of_the_caller_makes_what_is_listed():
    made = {}
    ahead = Ahead[int](lambda key: made.setdefault(key, threading.current_thread().name))

    def judge():
        for key in (3, 2, 1, 4):
            ahead.need(key)
            assert key in made, "it waits until a part is made"

    ahead.run(judge, [1, 2, 3])
    caller = threading.current_thread().name
    assert made == {1: caller, 2: caller, 3: caller, 4: "judge"}
    ahead.need(5)
    assert made[5] == caller


def test_an_error_in_judging_stops_making():
    made, failed = [], threading.Event()

    def make(key):
        made.append(key)
        failed.wait(SECONDS)

    def judge():
        failed.set()
        raise TypeError("no such figure")

    with pytest.raises(TypeError, match="no such figure"):
        Ahead[int](make).run(judge, range(10**9))


def test_an_error_in_making_ends_judging():
    ended, made = [], []

    def make(key):
        made.append(key)
        raise OSError(f"part {key}")

    ahead = Ahead[int](make)

    def judge():
        try:
            ahead.need(1)
        finally:
            ended.append(True)

    with pytest.raises(OSError, match="part 1"):
        ahead.run(judge, [1])
    assert ended == [True]
    assert made == [1], "the thread that judges does not make what failed"
    assert "judge" not in {thread.name for thread in threading.enumerate()}
