"""Many images in one process: the session stays warm, and one bad file does not stop the others.

The next image is read, and the last result written, while the network works on the present one.
Every case comes out as it would alone. A table beside the results says what became of each; with
its help a batch that was stopped goes on where it was.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from DistillSegLib.errors import Cancelled, DistillSegError, ImageError
from DistillSegLib.files import identity, write_text
from DistillSegLib.images import read_image, refuse_labels
from DistillSegLib.inference import Segmenter
from DistillSegLib.inputs import Input, Skipped
from DistillSegLib.regions import Region
from DistillSegLib.segmentations import Segmentation, volumes_ml, write_segmentation
from DistillSegLib.windows import ignore, never

TABLE = "results.csv"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """What became of one input; a line of the table.

    Attributes:
        status: "done", "failed" or "skipped" (not an image; it was not tried).
        seconds: from image in memory to label map.
        volumes_ml: by structure.
        reason: why it failed or was skipped, in one sentence.
        fingerprint: of the input files, the package and the region; equal only if a second run
            would give the same result.
    """

    case: str
    status: str
    input: str
    output: str = ""
    seconds: float = 0.0
    volumes_ml: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reason: str = ""
    package: str = ""
    fingerprint: str = ""


@dataclass(frozen=True)
class BatchResult:
    """Rows in the order of the inputs, then what was skipped.

    Attributes:
        resumed: the cases that an earlier run had finished and this one did not repeat.
        left: the cases that were not reached because the caller had enough.
    """

    rows: tuple[Row, ...]
    table: Path
    resumed: frozenset[str]
    left: tuple[str, ...] = ()

    def with_status(self, status: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.status == status)


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
        on_row: told each row when it is complete, from another thread.
        on_status: told a case's id and "resumed" or "running", before its row.
        on_progress: told the share done, 0 to 1.
        enough: asked between cases; if true, the present one is the last. A later run goes on.
        cancelled: asked throughout; if true, Cancelled is raised. What is done stays done.
    """
    out_folder = Path(out_folder)
    rows = _read_table(out_folder / TABLE)
    settings = _Settings(segmenter, out_folder, ending, region, force_scope)
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

    def write_table() -> None:
        present = sorted(rows.values(), key=lambda row: order.get(row.case, len(order)))
        _write_table(out_folder / TABLE, present)

    def record(row: Row) -> None:
        rows[row.case] = replace(row, fingerprint=prints[row.case])
        try:
            write_table()
        except ImageError:  # open in a spreadsheet program, perhaps; it is written again at the end
            log.warning("'%s' could not be written for now.", out_folder / TABLE)
        on_row(rows[row.case])

    left = _run(settings, waiting, record, on_status, on_progress, enough, cancelled)
    write_table()
    present = tuple(rows[case] for case in order if case not in left)
    return BatchResult(present, out_folder / TABLE, resumed, left)


def read_input(one: Input) -> list[sitk.Image]:
    """The images of an examination, one per channel."""
    images = [read_image(path, series=one.series) for path in one.images]
    for image, path in zip(images, one.images):
        refuse_labels(image, str(path))
    return images


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
    settings = _Settings(segmenter, file.parent, "", region, force_scope)
    images = read_input(one) if images is None else images
    segmentation, seconds = settings.segment(images, on_progress, cancelled)
    write_segmentation(segmentation, file)
    return settings.done(one, str(file), segmentation, seconds)


@dataclass(frozen=True)
class _Settings:
    """What all cases of a batch have in common."""

    segmenter: Segmenter
    out_folder: Path
    ending: str
    region: Region | None
    force_scope: bool

    def output(self, one: Input) -> str:
        return one.id + self.ending

    def fingerprint(self, one: Input) -> str:
        package = self.segmenter.package
        region = self.region and (self.region.center_mm, self.region.size_mm, self.region.axes)
        facts = [sorted(package.digests.items()), self.segmenter.variant.name, region]
        facts += [one.series, [_stamp(path) for path in one.images]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def is_done(self, one: Input, row: Row | None) -> bool:
        """Whether an earlier run, of which `row` tells, left the very result of this one."""
        return (
            row is not None
            and (row.status, row.output) == ("done", self.output(one))
            and row.fingerprint == self.fingerprint(one)
            and (self.out_folder / row.output).is_file()
        )

    def segment(
        self,
        images: Sequence[sitk.Image],
        on_progress: Callable[[float], None],
        cancelled: Callable[[], bool],
    ) -> tuple[Segmentation, float]:
        """The segmentation and its seconds."""
        start = time.perf_counter()
        segmentation = self.segmenter.segment(
            images,
            region=self.region,
            on_progress=on_progress,
            cancelled=cancelled,
            force_scope=self.force_scope,
        )
        return segmentation, time.perf_counter() - start

    def done(self, one: Input, output: str, segmentation: Segmentation, seconds: float) -> Row:
        return self.row(
            one,
            "done",
            output=output,
            seconds=round(seconds, 3),
            volumes_ml=volumes_ml(segmentation),
            warnings=segmentation.warnings,
        )

    def row(self, one: Input, status: str, **facts: Any) -> Row:
        manifest = self.segmenter.package.manifest
        package = f"{manifest.id} {manifest.version}"
        return Row(one.id, status, str(one.images[0]), package=package, **facts)


def _run(
    settings: _Settings,
    waiting: Sequence[Input],
    record: Callable[[Row], None],
    on_status: Callable[[str, str], None],
    on_progress: Callable[[float], None],
    enough: Callable[[], bool],
    cancelled: Callable[[], bool],
) -> tuple[str, ...]:
    """Reader thread -> network (this thread) -> writer thread; at most one image waits at each.

    Returns the cases that it did not come to, because the caller had enough.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        reading = [reader.submit(read_input, one) for one in waiting[:1]]
        writing: Future | None = None
        left: tuple[str, ...] = ()
        for number, one in enumerate(waiting):
            if enough():
                left = tuple(other.id for other in waiting[number:])
                break
            present = reading.pop()
            on_status(one.id, "running")
            reading += [reader.submit(read_input, after) for after in waiting[number + 1 :][:1]]

            def part(share: float, number: int = number) -> None:
                on_progress((number + share) / len(waiting))

            outcome = _segment(settings, present, part, cancelled)
            if writing:
                writing.result()
            writing = writer.submit(_write, settings, one, outcome, record)
            part(1.0)
        if writing:
            writing.result()
    return left


def _segment(
    settings: _Settings,
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


def _write(
    settings: _Settings,
    one: Input,
    outcome: tuple[Segmentation, float] | Exception,
    record: Callable[[Row], None],
) -> None:
    """Write the result, if there is one, and record what became of the input."""
    try:
        if isinstance(outcome, Exception):
            raise outcome
        write_segmentation(outcome[0], settings.out_folder / settings.output(one))
        row = settings.done(one, settings.output(one), *outcome)
    except Exception as problem:
        if not isinstance(problem, DistillSegError):  # our own sentences say enough
            log.error("Case '%s' failed.", one.id, exc_info=problem)
        reason = " ".join((str(problem) or repr(problem)).split())
        row = settings.row(one, "failed", reason=reason)
    record(row)


def _refuse_overwriting(settings: _Settings, inputs: Sequence[Input]) -> None:
    images = {identity(path) for one in inputs for path in one.images} - {None}
    for one in inputs:
        if identity(settings.out_folder / settings.output(one)) in images:
            raise ImageError(
                f"The result '{settings.out_folder / settings.output(one)}' would overwrite an "
                "input; choose another output folder."
            )


def _stamp(path: Path) -> list:
    """Name, size and time of each file of an image: equal as long as nobody changed it."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [
        (str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
        if file.is_file()
    ]


# --- The table ----------------------------------------------------------------------------------

_FIRST = ("case", "status", "input", "output", "seconds")
_LAST = ("warnings", "reason", "package", "fingerprint")
_UNIT = " (ml)"


def _write_table(path: Path, rows: Sequence[Row]) -> None:
    structures = dict.fromkeys(name + _UNIT for row in rows for name in row.volumes_ml)
    text = io.StringIO()
    table = csv.DictWriter(text, [*_FIRST, *structures, *_LAST], restval="", lineterminator="\n")
    table.writeheader()
    for row in rows:
        line = {name: getattr(row, name) for name in (*_FIRST, *_LAST)}
        line["warnings"] = " ".join(row.warnings)
        line |= {name + _UNIT: f"{volume:.6g}" for name, volume in row.volumes_ml.items()}
        table.writerow(line)
    write_text(path, text.getvalue())


def _read_table(path: Path) -> dict[str, Row]:
    """The rows of an earlier run by case; none if there was none."""
    if not path.exists():
        return {}
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream))
        return {line["case"]: _row(line) for line in lines}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as problem:
        raise ImageError(
            f"'{path}' is not a table of an earlier run ({type(problem).__name__}: {problem}); "
            "remove it or choose another output folder."
        ) from problem


def _row(line: dict[str, str]) -> Row:
    volumes = {
        name.removesuffix(_UNIT): float(value)
        for name, value in line.items()
        if name.endswith(_UNIT) and value
    }
    known = {name: line[name] for name in (*_FIRST, *_LAST)}
    warnings = (known["warnings"],) if known["warnings"] else ()
    seconds = float(known["seconds"])
    return Row(**known | {"volumes_ml": volumes, "warnings": warnings, "seconds": seconds})
