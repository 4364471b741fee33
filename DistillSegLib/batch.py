"""Many images in one process: the session stays warm, and one bad file does not stop the others.

The next image is read, and the last result written, while the network works on the present one.
Every case comes out as it would alone. A table beside the results says what became of each; with
its help a batch that was stopped goes on where it was. The cases may also be done by the workers of
a Dask scheduler (`cluster`), with the same files and the same table.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import SimpleITK as sitk

from DistillSegLib import cluster as clusters
from DistillSegLib.batch_case import Settings, read_input
from DistillSegLib.batch_table import TABLE, Row, read_table, write_table
from DistillSegLib.errors import Cancelled, ImageError
from DistillSegLib.files import identity
from DistillSegLib.inference import Segmenter
from DistillSegLib.inputs import Input, Skipped
from DistillSegLib.machine import physical_cores
from DistillSegLib.regions import Region
from DistillSegLib.segmentations import Segmentation, write_segmentation
from DistillSegLib.windows import ignore, never

__all__ = ["TABLE", "BatchResult", "Row", "read_input", "run_batch", "segment_input"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchResult:
    """Rows in the order of the inputs, then what was skipped.

    Attributes:
        resumed: the cases that an earlier run had finished and this one did not repeat.
        left: the cases that were not reached because the caller had enough.
        seconds: of the whole batch, from reading the first image to writing the last result.
        cpu_seconds: processor time that the batch took, of all threads and of all workers.
        cores: physical cores at hand; of a cluster, those of the hosts that took part.
    """

    rows: tuple[Row, ...]
    table: Path
    resumed: frozenset[str]
    left: tuple[str, ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    cores: int = 1

    def with_status(self, status: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.status == status)

    @property
    def busy(self) -> float:
        """The share of the cores that this batch kept busy; above 1 with two threads per core."""
        return self.cpu_seconds / (self.seconds * self.cores) if self.seconds else 0.0


def run_batch(
    segmenter: Segmenter,
    inputs: Sequence[Input],
    out_folder: Path | str,
    *,
    ending: str = ".seg.nrrd",
    region: Region | None = None,
    force_scope: bool = False,
    skipped: Sequence[Skipped] = (),
    resume: bool = True,
    cluster: clusters.Cluster | None = None,
    on_row: Callable[[Row], None] = lambda row: None,
    on_status: Callable[[str, str], None] = lambda case, status: None,
    on_progress: Callable[[float], None] = ignore,
    enough: Callable[[], bool] = never,
    cancelled: Callable[[], bool] = never,
) -> BatchResult:
    """Segment every input into `out_folder`, and keep `results.csv` there up to date.

    Args:
        ending: of the results, which decides their format.
        skipped: to be listed in the table besides.
        resume: leave out what an earlier run finished with the same input, package and region.
        cluster: whose workers do the cases, instead of this process.
        on_row: told each row when it is complete, from another thread.
        on_status: told a case's id and "resumed" or "running", before its row.
        on_progress: told the share done, 0 to 1.
        enough: asked between cases; if true, the present one is the last (on a cluster, those that
            were handed out are). A later run goes on.
        cancelled: asked throughout; if true, Cancelled is raised. What is done stays done.
    """
    out_folder = Path(out_folder)
    rows = read_table(out_folder / TABLE)
    settings = Settings(segmenter, out_folder, ending, region, force_scope)
    _refuse_overwriting(settings, inputs)
    prints = {one.id: settings.fingerprint(one) for one in inputs}
    resumed = frozenset(
        one.id for one in inputs if resume and settings.is_done(one, rows.get(one.id))
    )
    waiting = [one for one in inputs if one.id not in resumed]
    for case in sorted(resumed):
        on_status(case, "resumed")
    for one in skipped:
        rows[one.id] = Row(one.id, "skipped", str(one.path), reason=one.reason)
    order = {one.id: number for number, one in enumerate((*inputs, *skipped))}

    def save() -> None:
        present = sorted(rows.values(), key=lambda row: order.get(row.case, len(order)))
        write_table(out_folder / TABLE, present)

    def record(row: Row) -> None:
        rows[row.case] = replace(row, fingerprint=prints[row.case])
        try:
            save()
        except ImageError:  # open in a spreadsheet program, perhaps; it is written again at the end
            log.warning("'%s' could not be written for now.", out_folder / TABLE)
        on_row(rows[row.case])

    work = clusters.Work(settings, waiting, record, on_status, on_progress, enough, cancelled)
    started, cpu = time.perf_counter(), time.process_time()
    if cluster and waiting:
        left, cpu_seconds, cores = clusters.run(cluster, work)
    else:
        left = _run(work)
        cpu_seconds, cores = time.process_time() - cpu, physical_cores() or os.cpu_count() or 1
    seconds = time.perf_counter() - started
    save()
    present = tuple(rows[case] for case in order if case not in left)
    return BatchResult(
        present, out_folder / TABLE, resumed, left, round(seconds, 3), round(cpu_seconds, 3), cores
    )


def segment_input(
    segmenter: Segmenter,
    one: Input,
    file: Path,
    *,
    images: Sequence[sitk.Image] | None = None,
    region: Region | None = None,
    force_scope: bool = False,
    on_progress: Callable[[float], None] = ignore,
    cancelled: Callable[[], bool] = never,
) -> Row:
    """Segment one input into `file`; what goes wrong is raised.

    Args:
        images: of the input, where they were read already.
    """
    settings = Settings(segmenter, file.parent, "", region, force_scope)
    images = read_input(one) if images is None else images
    segmentation, seconds = settings.segment(images, on_progress, cancelled)
    write_segmentation(segmentation, file)
    return settings.done(one, str(file), segmentation, seconds)


def _run(work: clusters.Work) -> tuple[str, ...]:
    """Reader thread -> network (this thread) -> writer thread; at most one image waits at each.

    Returns the cases that it did not come to, because the caller had enough.
    """
    settings, waiting = work.settings, work.waiting

    def write(one: Input, outcome: tuple[Segmentation, float] | Exception) -> None:
        work.record(settings.finish(one, outcome))

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        reading = [reader.submit(read_input, one) for one in waiting[:1]]
        writing: Future | None = None
        left: tuple[str, ...] = ()
        for number, one in enumerate(waiting):
            if work.enough():
                left = tuple(other.id for other in waiting[number:])
                break
            present = reading.pop()
            work.on_status(one.id, "running")
            reading += [reader.submit(read_input, after) for after in waiting[number + 1 :][:1]]

            def part(share: float, number: int = number) -> None:
                work.on_progress((number + share) / len(waiting))

            outcome = _segment(settings, present, part, work.cancelled)
            if writing:
                writing.result()
            writing = writer.submit(write, one, outcome)
            part(1.0)
        if writing:
            writing.result()
    return left


def _segment(
    settings: Settings,
    reading: Future,
    on_progress: Callable[[float], None],
    cancelled: Callable[[], bool],
) -> tuple[Segmentation, float] | Exception:
    """The segmentation and its seconds, or what went wrong with it."""
    if cancelled():
        raise Cancelled("The batch was cancelled; the cases done so far were kept.")
    try:
        return settings.segment(reading.result(), on_progress, cancelled)
    except Cancelled:
        raise
    except Exception as problem:
        return problem


def _refuse_overwriting(settings: Settings, inputs: Sequence[Input]) -> None:
    images = {identity(path) for one in inputs for path in one.images} - {None}
    for one in inputs:
        if identity(settings.out_folder / settings.output(one)) in images:
            raise ImageError(
                f"The result '{settings.out_folder / settings.output(one)}' would overwrite an "
                "input; choose another output folder."
            )
