"""A model scored on cases with reference label maps, per case and per structure.

Scores are computed on the grid of the reference, as a clinician sees them, never on a network's.

    >>> segmenter = Segmenter("hippocampus-fast")
    >>> scores = evaluate(lambda case: segmenter.segment(case.images), cases, labels=dataset.labels)
    >>> scores.to_csv("scores.csv")
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from DistillSegLib.datasets import Case
from DistillSegLib.errors import Cancelled, DatasetError, DistillSegError
from DistillSegLib.files import write_text
from DistillSegLib.geometry import describe_grid, same_grid, spacing_of
from DistillSegLib.labels import LabelTable
from DistillSegLib.metrics import Score, score
from DistillSegLib.segmentations import Segmentation, read_segmentation
from DistillSegLib.windows import ignore, never

METRICS = ("dice", "hd95_mm", "nsd", "volume_ml", "reference_ml")


@dataclass(frozen=True)
class CaseScores:
    """What became of one case.

    Attributes:
        scores: one per structure; empty if the case failed.
        seconds: from reading the image to the label map, by the clock.
        cpu_seconds: the same, summed over all cores.
        failure: why there are no scores, in one sentence; empty if there are.
    """

    case: str
    scores: tuple[Score, ...]
    seconds: float
    cpu_seconds: float
    failure: str = ""


@dataclass(frozen=True)
class Summary:
    """One metric of one structure over all cases.

    Attributes:
        mean, sd: over the finite values; NaN where there are none (sd, with n - 1: below two).
        cases: how many values are finite.
        empty: how many are NaN, because neither prediction nor reference holds the structure.
        infinite: how many distances are infinite, because only one of both holds it.
    """

    structure: str
    metric: str
    mean: float
    sd: float
    cases: int
    empty: int
    infinite: int


@dataclass(frozen=True)
class Scores:
    """The result of `evaluate`."""

    cases: tuple[CaseScores, ...]
    tolerance_mm: float

    @property
    def failures(self) -> tuple[CaseScores, ...]:
        """The cases that could not be scored."""
        return tuple(case for case in self.cases if case.failure)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row per scored case and structure, with the columns of `METRICS`."""
        return [
            {"case": case.case, "structure": score.label.name, **_values(score)}
            | {"seconds": case.seconds, "cpu_seconds": case.cpu_seconds}
            for case in self.cases
            for score in case.scores
        ]

    def summary(self) -> list[Summary]:
        """Mean and standard deviation of each metric of each structure, in the table's order."""
        structures = dict.fromkeys(row["structure"] for row in self.rows)
        return [
            _summarise(
                structure, metric, [r[metric] for r in self.rows if r["structure"] == structure]
            )
            for structure in structures
            for metric in METRICS
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, which knows neither NaN nor infinity: both are null.

        A null HD95 beside a Dice of 0 is infinite; beside a null Dice both masks are empty.
        """
        return {
            "tolerance_mm": self.tolerance_mm,
            "cases": [_finite(row) for row in self.rows],
            "failures": [{"case": f.case, "reason": f.failure} for f in self.failures],
            "summary": [_finite(vars(summary)) for summary in self.summary()],
        }

    def to_json(self, path: Path | str) -> Path:
        """Write `to_dict` as JSON."""
        return write_text(path, json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")

    def to_csv(self, path: Path | str) -> Path:
        """Write a row per case and structure; a failed case is one row with its reason."""
        columns = ["case", "structure", *METRICS, "seconds", "cpu_seconds", "failure"]
        text = io.StringIO()
        table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        table.writerows({"case": f.case, "failure": f.failure} for f in self.failures)
        return write_text(path, text.getvalue())


def evaluate(
    segment: Callable[[Case], Segmentation],
    cases: Sequence[Case],
    *,
    labels: LabelTable,
    tolerance_mm: float = 1.0,
    on_progress: Callable[[float], None] = ignore,
    cancelled: Callable[[], bool] = never,
) -> Scores:
    """Segment every case and score it against its reference.

    A case that fails is reported in the result and does not stop the others.

    Args:
        segment: the image of a case -> its segmentation, on the grid of the reference.
        labels: the structures to score, with their values in both.
        tolerance_mm: for the surface Dice.
        on_progress: told the share of cases done, 0 to 1.
        cancelled: asked before each case; if true, Cancelled is raised.
    """
    results = []
    for number, case in enumerate(cases, start=1):
        if cancelled():
            raise Cancelled("The evaluation was cancelled; nothing was written.")
        results.append(_evaluate_case(segment, case, labels, tolerance_mm))
        on_progress(number / len(cases))
    return Scores(tuple(results), tolerance_mm)


def _evaluate_case(
    segment: Callable[[Case], Segmentation], case: Case, labels: LabelTable, tolerance_mm: float
) -> CaseScores:
    start, cpu_start = time.perf_counter(), time.process_time()
    try:
        prediction = segment(case)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        scores = _against_reference(prediction, case, labels, tolerance_mm)
        return CaseScores(case.id, scores, seconds, cpu_seconds)
    except Cancelled:
        raise
    except Exception as problem:  # reported with the case: one bad file must not cost a night's run
        if not isinstance(problem, DistillSegError):
            logging.getLogger(__name__).exception("Case '%s' failed.", case.id)
        return CaseScores(case.id, (), math.nan, math.nan, failure=str(problem) or repr(problem))


def _against_reference(
    prediction: Segmentation, case: Case, labels: LabelTable, tolerance_mm: float
) -> tuple[Score, ...]:
    if case.label is None:
        raise DatasetError(f"Case '{case.id}' has no label map to score against; add one.")
    reference = read_segmentation(case.label, labels)
    if not same_grid(prediction.image, reference.image):
        raise DatasetError(
            f"The reference '{case.label.name}' ({describe_grid(reference.image)}) does not lie on "
            f"the grid of its image ({describe_grid(prediction.image)}); replace it."
        )
    return tuple(
        score(
            sitk.GetArrayFromImage(prediction.image),
            sitk.GetArrayFromImage(reference.image),
            labels,
            spacing_mm=spacing_of(reference.image),
            tolerance_mm=tolerance_mm,
        )
    )


def _values(score: Score) -> dict[str, float]:
    values = (score.dice, score.hd95_mm, score.nsd, score.volume_a_ml, score.volume_b_ml)
    return dict(zip(METRICS, values, strict=True))


def _summarise(structure: str, metric: str, values: Sequence[float]) -> Summary:
    finite = [value for value in values if math.isfinite(value)]
    return Summary(
        structure,
        metric,
        mean=statistics.fmean(finite) if finite else math.nan,
        sd=statistics.stdev(finite) if len(finite) > 1 else math.nan,
        cases=len(finite),
        empty=sum(map(math.isnan, values)),
        infinite=sum(map(math.isinf, values)),
    )


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
