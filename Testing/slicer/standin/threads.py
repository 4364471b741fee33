"""What is true of worker threads in Slicer, and would not be seen on PySide.

1. MRML and Qt belong to the main thread. Every call of a VTK or MRML method from a worker is
   recorded (Qt objects are watched in `attributes`).
2. PythonQt keeps the interpreter while its event loop idles: a worker advances only while Python
   code of the main thread waits. So the poll handler must wait on the worker's event. A worker that
   lived while the main thread sat in the event loop, and for which nobody waited, is recorded.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import vtk

from .binding import QtCore, QtWidgets
from .views import View
from .violations import record

LONG_ENOUGH = 0.3  # seconds; shorter workers end within a few switches of the interpreter
A_WAIT = 0.005  # seconds; a poll that returns sooner has not waited
MANY_POLLS = 2.0  # seconds, after which the share counts too, whatever was painted meanwhile
WAITED_SHARE = 0.15  # 20 ms in each poll of 50 ms is 0.29; returning at once is 0


class Meter:
    """Seconds that the main thread spent in some functions, the call that still runs included."""

    def __init__(self):
        self._seconds, self._count, self._depth, self._begin = 0.0, 0, 0, 0.0

    def _running(self) -> float:
        return time.perf_counter() - self._begin if self._depth else 0.0

    @property
    def seconds(self) -> float:
        return self._seconds + self._running()

    @property
    def count(self) -> int:
        """How many calls lasted for at least `A_WAIT`."""
        return self._count + (self._running() >= A_WAIT)

    def around(self, function):
        """The function, measured when the main thread calls it."""

        def measured(*arguments, **keywords):
            if threading.current_thread() is not threading.main_thread() or self._depth:
                return function(*arguments, **keywords)
            self._begin, self._depth = time.perf_counter(), 1
            try:
                return function(*arguments, **keywords)
            finally:
                self._count, self._seconds = self.count, self.seconds
                self._depth = 0

        return measured


waiting = Meter()  # Python code of the main thread waits
looping = Meter()  # the main thread is in an event loop
painting = Meter()  # it draws a view without a graphics card, which takes the place of polls


@dataclass
class Worker:
    """A thread that the main thread started: what the main thread did while it lived."""

    name: str
    waits: int
    waited: float
    looped: float

    @classmethod
    def now(cls, name: str) -> Worker:
        return cls(name, waiting.count, waiting.seconds, looping.seconds - painting.seconds)

    def until_now(self) -> Worker:
        now = Worker.now(self.name)
        return Worker(
            self.name,
            now.waits - self.waits,
            now.waited - self.waited,
            now.looped - self.looped,
        )

    @property
    def starved(self) -> bool:
        never = self.looped >= LONG_ENOUGH and self.waits == 0
        return never or (self.looped >= MANY_POLLS and self.waited < WAITED_SHARE * self.looped)


_running: dict[threading.Thread, Worker] = {}
_ended: list[Worker] = []


def _watch_calls(frame, event, function) -> None:
    """A profiler for workers: which C function is called on which object."""
    if event == "c_call":
        owner = getattr(function, "__self__", None)
        if isinstance(owner, vtk.vtkObject):
            where = f"{owner.GetClassName()}.{function.__name__}"
            record("mrml-in-thread", f"{where} was called outside the main thread")


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Watches while inside; the functions of `threading` and `time` are ours meanwhile."""
    places = [
        (threading.Condition, "wait", waiting.around(threading.Condition.wait)),
        (threading.Thread, "join", waiting.around(threading.Thread.join)),
        (time, "sleep", waiting.around(time.sleep)),
        (QtCore.QEventLoop, "exec", looping.around(QtCore.QEventLoop.exec)),
        (QtWidgets.QDialog, "exec", looping.around(QtWidgets.QDialog.exec)),
        (View, "image", painting.around(View.image)),
        (threading.Thread, "start", _start),
        (threading.Thread, "run", _run),
    ]
    originals = [getattr(owner, name) for owner, name, _ in places]
    for owner, name, ours in places:
        setattr(owner, name, ours)
    try:
        yield
    finally:
        for (owner, name, _), original in zip(places, originals, strict=True):
            setattr(owner, name, original)


_original_start, _original_run = threading.Thread.start, threading.Thread.run


def _start(self):
    if threading.current_thread() is threading.main_thread():
        _running[self] = Worker.now(self.name)
    _original_start(self)
    if self in _running:  # `start` itself waits until the thread runs; that does not count
        _running[self] = Worker.now(self.name)


def _run(self):
    if self in _running:
        sys.setprofile(_watch_calls)
    try:
        _original_run(self)
    finally:
        sys.setprofile(None)
        _end(self)


def _end(thread: threading.Thread) -> None:
    worker = _running.pop(thread, None)
    if worker is not None:
        _ended.append(worker.until_now())


def report() -> list[Worker]:
    """The workers that ended since the last call."""
    ended, _ended[:] = list(_ended), []
    return ended


def check() -> None:
    """Records workers that would hardly have advanced in Slicer, and those that still run."""
    for worker in report():
        if worker.starved:
            record(
                "starved-worker",
                f"Thread '{worker.name}' ran beside the event loop for {worker.looped:.1f} s, in "
                f"which the main thread waited for {worker.waited:.2f} s only. In Slicer it "
                "advances only meanwhile: wait about 20 ms on its event in every poll",
            )
    for worker in _running.values():
        record("worker-left-running", f"Thread '{worker.name}' still runs")
    _running.clear()
