"""One case of a batch: read, segmented, written, and its row of the table."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from DistillSegLib.batch_table import Row
from DistillSegLib.errors import DistillSegError
from DistillSegLib.images import read_image, refuse_labels
from DistillSegLib.inference import Segmenter
from DistillSegLib.inputs import Input
from DistillSegLib.regions import Region
from DistillSegLib.segmentations import Segmentation, volumes_ml, write_segmentation

log = logging.getLogger(__name__)


def read_input(one: Input) -> list[sitk.Image]:
    """The images of an examination, one per channel."""
    images = [read_image(path, series=one.series) for path in one.images]
    for image, path in zip(images, one.images):
        refuse_labels(image, str(path))
    return images


@dataclass(frozen=True)
class Settings:
    """What all cases of a batch have in common.

    Attributes:
        ending: of the results, which decides their format.
    """

    segmenter: Segmenter
    out_folder: Path
    ending: str = ""
    region: Region | None = None
    force_scope: bool = False

    def output(self, one: Input) -> str:
        """The name of the result in the output folder."""
        return one.id + self.ending

    def fingerprint(self, one: Input) -> str:
        """Equal only if a second run would give the same result."""
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

    def finish(self, one: Input, outcome: tuple[Segmentation, float] | Exception) -> Row:
        """Write the result, if there is one; the row says what became of the input."""
        try:
            if isinstance(outcome, Exception):
                raise outcome
            write_segmentation(outcome[0], self.out_folder / self.output(one))
            return self.done(one, self.output(one), *outcome)
        except Exception as problem:
            if not isinstance(problem, DistillSegError):  # our own sentences say enough
                log.error("Case '%s' failed.", one.id, exc_info=problem)
            return self.failed(one, problem)

    def done(self, one: Input, output: str, segmentation: Segmentation, seconds: float) -> Row:
        """The row of a result."""
        return self._row(
            one,
            "done",
            output=output,
            seconds=round(seconds, 3),
            volumes_ml=volumes_ml(segmentation),
            warnings=segmentation.warnings,
        )

    def failed(self, one: Input, problem: Exception) -> Row:
        """The row of a case without a result."""
        return self._row(one, "failed", reason=" ".join((str(problem) or repr(problem)).split()))

    def _row(self, one: Input, status: str, **facts: Any) -> Row:
        manifest = self.segmenter.package.manifest
        package = f"{manifest.id} {manifest.version}"
        return Row(one.id, status, str(one.images[0]), package=package, **facts)


def _stamp(path: Path) -> list:
    """Name, size and time of each file of an image: equal as long as nobody changed it."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [
        (str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
        if file.is_file()
    ]
