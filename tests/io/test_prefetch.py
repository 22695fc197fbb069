"""A thread that takes items before they are asked for."""

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from waiting import wait_until

from vdit.io import prefetch
from vdit.io.prefetch import Prefetcher


class Counted:
    """0, 1, ... up to a number; `taken` tells how many, `gate` lets them go."""

    def __init__(self, end: int = 1000) -> None:
        self.end, self.taken, self.gate = end, 0, threading.Event()
        self.gate.set()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.gate.wait()
        if self.taken == self.end:
            raise StopIteration
        self.taken += 1
        return self.taken - 1


def test_so_many_are_taken_ahead_and_no_more() -> None:
    items = Counted()
    prefetcher = Prefetcher(items, 4)
    wait_until(lambda: items.taken == 4)
    for number in range(20):
        assert next(prefetcher) == number
        wait_until(lambda number=number: items.taken == number + 5)
    time.sleep(0.02)  # in which the thread would take more, if it did
    assert items.taken == 24 and prefetcher.waited == 0
    prefetcher.close()
    assert items.taken == 24


def test_only_waiting_for_what_is_not_there_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    items = Counted()
    items.gate.clear()
    readings = []

    def clock() -> float:
        """Five seconds later at every look; once the wait has begun, the item may come."""
        items.gate.set()
        readings.append(5.0 * len(readings))
        return readings[-1]

    monkeypatch.setattr(prefetch, "time", SimpleNamespace(perf_counter=clock))
    prefetcher = Prefetcher(items, 2)
    assert next(prefetcher) == 0
    assert prefetcher.waited == 5.0 and readings == [0.0, 5.0]
    prefetcher.close()


def test_the_end_and_errors_reach_the_one_who_asks() -> None:
    assert list(Prefetcher(Counted(5), 2)) == [0, 1, 2, 3, 4]
    empty = Prefetcher(Counted(0), 2)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(empty)
    empty.close()

    def breaks() -> Iterator[int]:
        yield 7
        raise OSError("gone")

    prefetcher = Prefetcher(breaks(), 2)
    assert next(prefetcher) == 7
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            next(prefetcher)
    prefetcher.close()
