"""What a Dask worker does of a batch: one case for each task, with a segmenter that stays warm."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from DistillSegLib.batch_case import Settings, read_input
from DistillSegLib.batch_table import Row
from DistillSegLib.errors import Cancelled
from DistillSegLib.inference import Segmenter
from DistillSegLib.inputs import Input
from DistillSegLib.machine import physical_cores
from DistillSegLib.regions import Region
from DistillSegLib.windows import ignore

TOKEN = ".batch"  # in the results folder; names the batch that runs
LOOK_SECONDS = 0.25  # between two looks whether it still does
WARM = 2  # segmenters that a worker keeps


@dataclass(frozen=True)
class Task:
    """What a worker must know of a batch, beside the case. Paths are absolute.

    Attributes:
        token: the name of the batch.
        package: its file's name among what the worker was sent.
        threads: of the network; -N is an N-th of the host's cores.
        memory_bytes: as in `Segmenter`.
    """

    token: str
    package: str
    variant: str
    threads: int
    engine: str
    memory_bytes: int | None
    out_folder: Path
    ending: str
    region: Region | None
    force_scope: bool


@dataclass(frozen=True)
class Done:
    """A row, and the processor time that the worker's process had used before and after."""

    row: Row
    worker: tuple[str, int]
    cores: int
    cpu_seconds: tuple[float, float]


_warm: dict[tuple, Segmenter] = {}
_warming = threading.Lock()


def token_in(folder: Path) -> str:
    """The name of the batch that runs in a results folder; empty if none does."""
    try:
        return (folder / TOKEN).read_text(encoding="utf-8")
    except OSError:
        return ""


def answer(question: bytes) -> bytes:
    """`segment_case` of pickled arguments, pickled: the scheduler never looks inside."""
    return pickle.dumps(segment_case(*pickle.loads(question)))


def segment_case(task: Task, one: Input) -> Done:
    """One case; every failure of its own becomes a row."""
    cpu = time.process_time()
    stopped = _stop_watch(task)
    settings = Settings(
        _segmenter(task), task.out_folder, task.ending, task.region, task.force_scope
    )
    try:
        _stop_if(stopped)
        outcome: Any = settings.segment(read_input(one), ignore, stopped)
        _stop_if(stopped)
    except Cancelled:
        raise
    except Exception as problem:
        outcome = problem
    row = settings.finish(one, outcome)
    worker = (socket.gethostname(), os.getpid())
    return Done(row, worker, cores(), (cpu, time.process_time()))


def _segmenter(task: Task) -> Segmenter:
    """The worker's segmenter of a package and settings, loaded once."""
    from distributed import get_worker

    threads = task.threads if task.threads > 0 else max(1, cores() // -task.threads)
    settings = {"variant": task.variant, "threads": threads, "engine": task.engine}
    settings |= {"memory_bytes": task.memory_bytes}
    key = (task.package, *settings.values())
    with _warming:
        if key not in _warm:
            while len(_warm) >= WARM:
                _warm.pop(next(iter(_warm)))
            file = Path(get_worker().local_directory) / task.package
            _warm[key] = Segmenter(file, **settings)
        return _warm[key]


def _stop_watch(task: Task) -> Callable[[], bool]:
    """Whether the batch was called off, looked up now and then."""
    looked, stopped = 0.0, False

    def ask() -> bool:
        nonlocal looked, stopped
        if not stopped and time.monotonic() - looked > LOOK_SECONDS:
            looked, stopped = time.monotonic(), token_in(task.out_folder) != task.token
        return stopped

    return ask


def _stop_if(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise Cancelled("The batch was called off; nothing was written.")


def has_package(name: str, dask_worker: Any = None) -> bool:
    """Whether this worker, which Dask itself names, was sent a package of this file name."""
    return (Path(dask_worker.local_directory) / name).is_file()


def unseen_from_here(folder: Path, token: str, images: Sequence[Path]) -> Path | None:
    """The first of the images, or the results folder, that is not seen from here."""
    if token_in(folder) != token:
        return folder
    return next((path for path in images if not path.exists()), None)


def cores() -> int:
    """Physical cores of this host that the process may run on."""
    return physical_cores() or os.cpu_count() or 1
