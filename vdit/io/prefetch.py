"""An iterator that a thread reads ahead of its consumer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class Prefetcher(Generic[_Item]):
    """Gives the items of an iterator; a thread takes up to `count` of them before they are needed, from now on.

    The consumer never waits for a lock while an item is there: a `SimpleQueue` needs none. With every core computing, a
    thread may be set aside while it holds the one of a `queue.Queue`, which Grain's own prefetching uses.

    Args:
      items: what is taken from; only the thread does.
      count: items that may wait.

    Attributes:
      waited: seconds, so far, that the consumer waited for items which were not there yet.
    """

    def __init__(self, items: Iterator[_Item], count: int) -> None:
        self._items, self._closed, self.waited = items, False, 0.0
        self._peeked: list[_Item] = []
        self._ready: queue.SimpleQueue[tuple[_Item | None, BaseException | None]] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(count):
            self._room.put(None)
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[_Item]:
        return self

    def peek(self) -> _Item:
        """The next item, which stays the next."""
        if not self._peeked:
            self._peeked.append(next(self))
        return self._peeked[0]

    def __next__(self) -> _Item:
        if self._peeked:
            return self._peeked.pop()
        try:
            item, error = self._ready.get_nowait()
        except queue.Empty:
            started = time.perf_counter()
            item, error = self._ready.get()
            self.waited += time.perf_counter() - started
        if error is not None:
            self._ready.put((None, error))  # for the next call
            raise error
        self._room.put(None)
        return item  # type: ignore[return-value]

    def close(self) -> None:
        """Ends the thread; no item may be taken after that."""
        self._closed = True
        self._room.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._room.get()
            if self._closed:
                return
            try:
                self._ready.put((next(self._items), None))
            except BaseException as error:  # raised in the consumer
                self._ready.put((None, error))
                return
