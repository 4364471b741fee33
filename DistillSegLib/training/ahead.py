"""What an iterator gives, fetched ahead in a thread: taking over workers' arrays takes time too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Full, Queue
from typing import Generic, TypeVar

Item = TypeVar("Item")
POLL_SECONDS = 0.1


class Ahead(Generic[Item]):
    """An iterator that is a few items ahead of whoever asks; errors come where the item would.

    The thread ends with its owner, with `close`, or with the program, which waits for it: a thread
    that Python cuts off within torch takes the whole process down with it (SIGABRT).

    Args:
        items: used by the thread alone from now on.
        depth: how many items may wait.
    """

    def __init__(self, items: Iterator[Item], depth: int = 2):
        self._came: Queue[tuple[Item | None, BaseException | None]] = Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=_fetch, args=(items, self._came, self._stop))
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        item, problem = self._came.get()
        if problem is not None:
            self._came.put((None, problem))  # so it stays, whoever asks again
            raise problem
        return item

    def close(self) -> None:
        """End the thread, which then no longer holds the iterator."""
        self._stop.set()
        self._thread.join()

    def __del__(self) -> None:
        self._stop.set()  # the thread holds no reference to this object


def _fetch(items: Iterator[Item], came: Queue, stop: threading.Event) -> None:
    problem: BaseException = StopIteration()
    try:
        for item in items:
            if not _put(came, (item, None), stop):
                return
    except BaseException as found:  # raised again by who asks for the item
        problem = found
    _put(came, (None, problem), stop)


def _put(came: Queue, entry: tuple, stop: threading.Event) -> bool:
    while not stop.is_set() and threading.main_thread().is_alive():
        try:
            came.put(entry, timeout=POLL_SECONDS)
            return True
        except Full:
            continue
    return False
