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
from DistillSegLib.files import write_text
from DistillSegLib.geometry import spacing_of
from DistillSegLib.images import read_image
from DistillSegLib.inference import Segmenter
from DistillSegLib.inputs import Input, Skipped
from DistillSegLib.metrics import volume_ml
from DistillSegLib.regions import Region
from DistillSegLib.segmentations import Segmentation, write_segmentation
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
    """

    rows: tuple[Row, ...]
    table: Path
    resumed: frozenset[str]

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
    on_progress: Callable[[float], None] = ignore,
    cancelled: Callable[[], bool] = never,
) -> BatchResult:
    """Segment every input into `out_folder`, and keep `results.csv` there up to date.

    Args:
        ending: of the results, which decides their format.
        skipped: to be listed in the table besides.
        resume: leave out what an earlier run finished with the same input, package and region.
        on_row: told each row when it is complete, from another thread.
        on_progress: told the share done, 0 to 1.
        cancelled: asked throughout; if true, Cancelled is raised. What is done stays done.
    """
    out_folder = Path(out_folder)
    rows = _read_table(out_folder / TABLE)
    settings = _Settings(segmenter, out_folder, ending, region, force_scope)
    prints = {one.id: settings.fingerprint(one) for one in inputs}
    resumed = frozenset(
        one.id for one in inputs if resume and _is_done(rows, one.id, prints[one.id], out_folder)
    )
    waiting = [one for one in inputs if one.id not in resumed]
    for one in skipped:
        rows[one.id] = Row(one.id, "skipped", str(one.path), reason=one.reason)

    def record(row: Row) -> None:
        rows[row.case] = replace(row, fingerprint=prints[row.case])
        try:
            _write_table(out_folder / TABLE, rows.values())
        except ImageError:  # open in a spreadsheet program, perhaps; it is written again at the end
            log.warning("'%s' could not be written for now.", out_folder / TABLE)
        on_row(rows[row.case])

    _run(settings, waiting, record, on_progress, cancelled)
    _write_table(out_folder / TABLE, rows.values())
    return BatchResult(
        tuple(rows[one.id] for one in (*inputs, *skipped)), out_folder / TABLE, resumed
    )


def read_input(one: Input) -> list[sitk.Image]:
    """The images of an examination, one per channel."""
    return [read_image(path, series=one.series) for path in one.images]


def volumes_ml(segmentation: Segmentation) -> dict[str, float]:
    """The volume of each structure."""
    image = segmentation.image
    array = sitk.GetArrayViewFromImage(image)
    spacing_mm = spacing_of(image)
    return {
        label.name: volume_ml(array == label.value, spacing_mm) for label in segmentation.labels
    }


@dataclass(frozen=True)
class _Settings:
    """What all cases of a batch have in common."""

    segmenter: Segmenter
    out_folder: Path
    ending: str
    region: Region | None
    force_scope: bool

    def fingerprint(self, one: Input) -> str:
        region = self.region and [
            *self.region.center_mm,
            *self.region.size_mm,
            repr(self.region.axes),
        ]
        facts = [self.segmenter.package.digest, self.segmenter.variant.name, region, one.series]
        facts += [self.ending, [_stamp(path) for path in one.images]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def row(self, one: Input, status: str, **facts: Any) -> Row:
        manifest = self.segmenter.package.manifest
        package = f"{manifest.id} {manifest.version}"
        return Row(one.id, status, str(one.images[0]), package=package, **facts)


def _run(
    settings: _Settings,
    waiting: Sequence[Input],
    record: Callable[[Row], None],
    on_progress: Callable[[float], None],
    cancelled: Callable[[], bool],
) -> None:
    """Reader thread -> network (this thread) -> writer thread; at most one image waits at each."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        reading = [reader.submit(read_input, one) for one in waiting[:1]]
        writing: Future | None = None
        for number, one in enumerate(waiting):
            image_read, reading = (
                reading[0],
                [reader.submit(read_input, after) for after in waiting[number + 1 : number + 2]],
            )

            def part(share: float, number: int = number) -> None:
                on_progress((number + share) / len(waiting))

            finish = _segmented(settings, one, image_read, part, cancelled)
            if writing:
                writing.result()
            writing = writer.submit(lambda finish=finish: record(finish()))
            part(1)
        if writing:
            writing.result()


def _segmented(
    settings: _Settings,
    one: Input,
    image_read: Future,
    on_progress: Callable[[float], None],
    cancelled: Callable[[], bool],
) -> Callable[[], Row]:
    """Segment one input; what is returned writes the result and says what became of it."""
    if cancelled():
        raise Cancelled("The batch was cancelled; what is done so far was kept.")
    try:
        images = image_read.result()
        start = time.perf_counter()
        segmentation = settings.segmenter.segment(
            images,
            region=settings.region,
            on_progress=on_progress,
            cancelled=cancelled,
            force_scope=settings.force_scope,
        )
        seconds = time.perf_counter() - start
    except Cancelled:
        raise
    except Exception as problem:
        return lambda problem=problem: _failed(settings, one, problem)

    def write() -> Row:
        output = f"{one.id}{settings.ending}"
        try:
            write_segmentation(segmentation, settings.out_folder / output)
        except Exception as problem:
            return _failed(settings, one, problem)
        return settings.row(
            one,
            "done",
            output=output,
            seconds=round(seconds, 3),
            volumes_ml=volumes_ml(segmentation),
            warnings=tuple(segmentation.warnings),
        )

    return write


def _failed(settings: _Settings, one: Input, problem: Exception) -> Row:
    if not isinstance(problem, DistillSegError):  # our own sentences say enough
        log.error("Case '%s' failed.", one.id, exc_info=problem)
    return settings.row(one, "failed", reason=" ".join((str(problem) or repr(problem)).split()))


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


def _is_done(rows: dict[str, Row], case: str, fingerprint: str, out_folder: Path) -> bool:
    row = rows.get(case)
    return (
        row is not None
        and row.status == "done"
        and row.fingerprint == fingerprint
        and (out_folder / row.output).is_file()
    )
