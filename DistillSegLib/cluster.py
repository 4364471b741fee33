"""A batch on the workers of a Dask scheduler: every case is one task.

The client (this process) hands the cases out and alone writes the table; a worker reads the image,
segments it and writes the result, whole or not at all. So images and results lie on a disk that all
see under the same path; the package is sent. Each worker keeps its segmenter warm.

A worker that is lost loses nothing: Dask gives its cases to another. Since a file is renamed into
place when complete, and a row comes only from a finished task, no case is lost or listed twice.
A file in the results folder, `.batch`, names the batch that runs: a worker that no longer finds its
name there stops. So it serves to cancel, and shows at the start that workers see the folder.

    dask scheduler                        # prints its address
    dask worker tcp://node0:8786          # on every machine, where DistillSeg is installed
"""

from __future__ import annotations

import pickle
import queue
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from DistillSegLib.batch_case import Settings
from DistillSegLib.batch_table import Row
from DistillSegLib.cluster_start import (
    check_places,
    check_versions,
    connected,
    find_workers,
    send_package,
    token_of,
)
from DistillSegLib.cluster_worker import Done, Task
from DistillSegLib.errors import Cancelled, DistillSegError
from DistillSegLib.inputs import Input

# In words of plain Python, since the scheduler opens what it passes on and may lack DistillSeg.
ANSWER = "__import__('importlib').import_module('DistillSegLib.cluster_worker').answer(question)"
ALONE_SECONDS = 60  # without any worker, until the batch gives up
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Cluster:
    """A Dask scheduler and how its workers run the network.

    Attributes:
        address: such as "tcp://node0:8786".
        threads: of each worker's network; 0 shares out the cores of a host among its workers.
        engine: as in `Segmenter`.
    """

    address: str
    threads: int = 0
    engine: str = "auto"


@dataclass(frozen=True)
class Work:
    """The cases to do and whom to tell; see `batch.run_batch`."""

    settings: Settings
    waiting: Sequence[Input]
    record: Callable[[Row], None]
    on_status: Callable[[str, str], None]
    on_progress: Callable[[float], None]
    enough: Callable[[], bool]
    cancelled: Callable[[], bool]


def run(cluster: Cluster, work: Work) -> tuple[tuple[str, ...], float, int]:
    """Do the cases on a cluster.

    Returns:
        The cases that were not handed out because the caller had enough; the processor seconds of
        all workers; the cores of their hosts.

    Raises:
        DistillSegError: no scheduler or worker is reached, or a worker lacks DistillSeg or the
            disk; before any case is begun.
        Cancelled: the caller asked to stop.
    """
    with connected(cluster.address) as client, token_of(work.settings.out_folder) as token:
        workers = find_workers(client, cluster.address, work.cancelled)
        check_versions(client)
        package = send_package(client, work.settings.segmenter.package.path)
        hosts = Counter(address.rpartition(":")[0] for address in workers)
        share = cluster.threads or -max(hosts.values())
        task = _task(work.settings, token, package, share, cluster.engine)
        check_places(client, task, work.waiting)
        handing = _HandingOut(client, cluster.address, task, work)
        try:
            left = handing.run()
        finally:
            handing.withdraw()
        _remove_parts(work)
        return left, *handing.cost()


class _HandingOut:
    """Keeps twice as many cases handed out as the workers have threads, and takes in the rows."""

    def __init__(self, client: Any, address: str, task: Task, work: Work):
        self.client, self.address, self.task, self.work = client, address, task, work
        self.out: dict[Any, Input] = {}
        self.came: queue.Queue = queue.Queue()
        self.done: list[Done] = []
        self.alone_since: float | None = None

    def run(self) -> tuple[str, ...]:
        """All cases, until there are none or the caller has enough; returns those left."""
        from distributed import CancelledError

        waiting, finished = list(self.work.waiting), 0
        try:
            while waiting or self.out:
                places = 2 * self._threads() - len(self.out)
                while waiting and places > 0 and not self.work.enough():
                    self._hand_out(waiting.pop(0))
                    places -= 1
                if not self.out and (self.work.enough() or not waiting):
                    break
                if (future := self._next()) is not None:
                    self._take(future)
                    finished += 1
                    self.work.on_progress(finished / len(self.work.waiting))
        except (OSError, CancelledError) as problem:
            raise DistillSegError(
                f"The scheduler '{self.address}' was lost ({type(problem).__name__}); the rows so "
                "far were kept, and the same command goes on when it is there again."
            ) from problem
        return tuple(one.id for one in waiting)

    def withdraw(self) -> None:
        """Take back what was handed out and is not done."""
        with suppress(Exception):  # the scheduler may be what was lost
            self.client.cancel(list(self.out), force=True)

    def cost(self) -> tuple[float, int]:
        """(processor seconds of all workers that finished a case, cores of their hosts)."""
        used: dict[tuple[str, int], list[float]] = {}
        for done in self.done:
            used.setdefault(done.worker, []).extend(done.cpu_seconds)
        hosts = {done.worker[0]: done.cores for done in self.done}
        return sum(max(each) - min(each) for each in used.values()), sum(hosts.values()) or 1

    def _hand_out(self, one: Input) -> None:
        there = replace(one, images=tuple(path.absolute() for path in one.images))
        key = f"distillseg-{self.task.token}-{one.id}"
        question = {"question": pickle.dumps((self.task, there))}
        future = self.client.submit(eval, ANSWER, question, key=key, pure=False)
        self.out[future] = one
        self.work.on_status(one.id, "running")
        future.add_done_callback(self.came.put)

    def _next(self) -> Any:
        """A finished future, or None after a moment. Cancelled if the caller asks."""
        if self.work.cancelled():
            raise Cancelled("The batch was cancelled; the cases done so far were kept.")
        with suppress(queue.Empty):
            return self.came.get(timeout=POLL_SECONDS)
        return None

    def _take(self, future: Any) -> None:
        from distributed import CancelledError, KilledWorker

        one = self.out[future]
        try:
            done = self._result(future)
            self.done.append(done)
            row = _as_here(done.row, one)
        except (Cancelled, CancelledError, OSError):
            raise
        except KilledWorker:
            lost = "every worker that took it was lost, perhaps for want of memory; see their logs"
            row = self.work.settings.failed(one, DistillSegError(f"It was given up: {lost}."))
        except Exception as problem:  # such as DistillSeg missing on a worker that came later
            row = self.work.settings.failed(one, problem)
        del self.out[future]
        self.work.record(row)

    def _result(self, future: Any) -> Done:
        """What a task returned; its worker may be lost just now, and the task be done again."""
        from distributed import TimeoutError as NotYet

        while True:
            try:
                return pickle.loads(future.result(timeout=1))
            except NotYet:
                if self.work.cancelled():
                    raise Cancelled(
                        "The batch was cancelled; the cases done so far were kept."
                    ) from None
                self._threads()

    def _threads(self) -> int:
        """Threads of all workers. DistillSegError when there was none for long."""
        threads = sum(self.client.nthreads().values())
        if threads:
            self.alone_since = None
            return threads
        self.alone_since = self.alone_since or time.monotonic()
        if time.monotonic() - self.alone_since > ALONE_SECONDS:
            raise DistillSegError(
                f"The scheduler '{self.address}' has had no worker for {ALONE_SECONDS} s; start "
                "some and repeat the command, which goes on where it was."
            )
        return 0


def _as_here(row: Row, one: Input) -> Row:
    """A worker's row with the paths as they were given here."""
    reason = row.reason
    for path in one.images:
        reason = reason.replace(str(path.absolute()), str(path))
    return replace(row, input=str(one.images[0]), reason=reason)


def _remove_parts(work: Work) -> None:
    """Remove what workers that were lost had half-written; no other is writing any more."""
    results = [work.settings.out_folder / work.settings.output(one) for one in work.waiting]
    ends = {result.name[-20:] for result in results}
    for folder in {result.parent for result in results}:
        for file in folder.glob(".partial-*"):
            if file.name[len(".partial-") + 9 :] in ends:
                with suppress(OSError):
                    file.unlink()


def _task(settings: Settings, token: str, package: str, threads: int, engine: str) -> Task:
    return Task(
        token=token,
        package=package,
        variant=settings.segmenter.variant.name,
        threads=threads,
        engine=engine,
        memory_bytes=settings.segmenter.memory_bytes,
        out_folder=settings.out_folder.absolute(),
        ending=settings.ending,
        region=settings.region,
        force_scope=settings.force_scope,
    )
