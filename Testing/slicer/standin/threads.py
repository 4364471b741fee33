"""What is true of worker threads in Slicer, and would not be seen on PySide.

1. MRML and Qt belong to the main thread. Every call of a VTK or MRML method from a worker is
   recorded (Qt objects are watched in `attributes`).
2. PythonQt keeps the interpreter while its event loop idles: a worker advances only while Python
   code of the main thread waits. So the poll handler must wait on the worker's event. `report()`
   says how long each worker lived and for how long the main thread waited meanwhile; a worker for
   which nobody waited enough is recorded.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import vtk

from .violations import record

LONG_ENOUGH = 0.3  # seconds; shorter workers end within a few switches of the interpreter
A_WAIT = 0.005  # seconds; a poll that returns sooner has not waited
MANY_POLLS = 2.0  # seconds, after which the share counts too, whatever was painted meanwhile
WAITED_SHARE = 0.15  # 20 ms in each poll of 50 ms is 0.29; returning at once is 0

_main = threading.main_thread()
_waited = 0.0
_waits = 0
_depth = 0


@dataclass
class Worker:
    """A thread that the main thread started."""

    name: str
    started: float
    waited_before: float
    waits_before: int
    lived: float = 0.0
    waited: float = 0.0
    waits: int = 0

    @property
    def share(self) -> float:
        return self.waited / self.lived if self.lived else 1.0

    @property
    def starved(self) -> bool:
        never = self.lived >= LONG_ENOUGH and self.waits == 0
        return never or (self.lived >= MANY_POLLS and self.share < WAITED_SHARE)


_running: dict[threading.Thread, Worker] = {}
_ended: list[Worker] = []


def _counted(function):
    """The function, with the time counted that the main thread spends waiting in it."""

    def wait(*arguments, **keywords):
        global _waited, _waits, _depth
        if threading.current_thread() is not _main or _depth:
            return function(*arguments, **keywords)
        _depth += 1
        begin = time.perf_counter()
        try:
            return function(*arguments, **keywords)
        finally:
            _depth -= 1
            seconds = time.perf_counter() - begin
            _waited += seconds
            _waits += seconds >= A_WAIT

    return wait


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
        (threading.Condition, "wait", _counted(threading.Condition.wait)),
        (threading.Thread, "join", _counted(threading.Thread.join)),
        (time, "sleep", _counted(time.sleep)),
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
    if threading.current_thread() is _main:
        _running[self] = Worker(self.name, time.perf_counter(), _waited, _waits)
    _original_start(self)


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
        worker.lived = time.perf_counter() - worker.started
        worker.waited = _waited - worker.waited_before
        worker.waits = _waits - worker.waits_before
        _ended.append(worker)


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
                f"Thread '{worker.name}' ran for {worker.lived:.1f} s, in which the main thread "
                f"waited for {worker.waited:.2f} s only. In Slicer it advances only while Python "
                "code of the main thread waits: wait about 20 ms on its event in every poll",
            )
    for worker in _running.values():
        record("worker-left-running", f"Thread '{worker.name}' still runs")
    _running.clear()
