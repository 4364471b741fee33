"""Scores of a model over cases: means by hand, empty cases named, failures listed."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.datasets import Case
from DistillSegLib.errors import Cancelled, ImageError
from DistillSegLib.evaluation import METRICS, evaluate
from DistillSegLib.labels import label_table
from DistillSegLib.segmentations import Segmentation, write_segmentation

TABLE = label_table({1: "Core", 4: "Rim"})


def drawn(*columns: int) -> sitk.Image:
    """A 3 x 4 x 6 label map of 2 x 1 x 1 mm (z, y, x): value of each x column in one slice."""
    array = np.zeros((3, 4, 6), np.uint8)
    array[1, 1:3, : len(columns)] = columns
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1, 1, 2))
    return image


@pytest.fixture
def cases(tmp_path) -> list[Case]:
    """Core as 4 columns; core as 2 columns; no structure at all."""
    references = {"first": drawn(1, 1, 1, 1), "second": drawn(0, 0, 0, 0, 1, 1), "third": drawn()}
    for name, image in references.items():
        write_segmentation(Segmentation(image, TABLE), tmp_path / f"{name}.nii.gz")
    return [Case(name, (), tmp_path / f"{name}.nii.gz") for name in references]


PREDICTIONS = {"first": drawn(1, 1), "second": drawn(0, 0, 0, 0, 1, 1), "third": drawn(1)}


def segment(case: Case) -> Segmentation:
    return Segmentation(PREDICTIONS.get(case.id, drawn(1)), TABLE)


def test_scores_of_each_case_and_structure_are_those_drawn(cases):
    shares = []
    scores = evaluate(segment, cases, labels=TABLE, on_progress=shares.append)
    rows = {(row["case"], row["structure"]): row for row in scores.rows}
    assert rows["first", "Core"]["dice"] == pytest.approx(2 * 4 / (4 + 8))
    assert rows["first", "Core"]["volume_ml"] == pytest.approx(4 * 2 / 1000)
    assert rows["first", "Core"]["reference_ml"] == pytest.approx(8 * 2 / 1000)
    assert rows["second", "Core"]["dice"] == 1
    assert rows["third", "Core"]["dice"] == 0
    assert rows["third", "Core"]["hd95_mm"] == math.inf
    assert math.isnan(rows["first", "Rim"]["dice"])
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])
    assert all(row["seconds"] >= 0 for row in scores.rows)


def test_the_summary_is_over_finite_values_and_counts_the_others(cases):
    scores = evaluate(segment, cases, labels=TABLE)
    summary = {(s.structure, s.metric): s for s in scores.summary()}
    assert len(summary) == 2 * len(METRICS)
    dice = summary["Core", "dice"]
    values = [2 / 3, 1, 0]
    assert dice.mean == pytest.approx(np.mean(values))
    assert dice.sd == pytest.approx(np.std(values, ddof=1))
    assert (dice.cases, dice.empty, dice.infinite) == (3, 0, 0)
    hd95 = summary["Core", "hd95_mm"]
    assert hd95.mean == pytest.approx((2 + 0) / 2)
    assert (hd95.cases, hd95.empty, hd95.infinite) == (2, 0, 1)
    rim = summary["Rim", "dice"]
    assert math.isnan(rim.mean) and (rim.cases, rim.empty) == (0, 3)


def test_a_failing_case_is_listed_and_the_others_are_scored(cases, tmp_path):
    def fail_on_second(case: Case) -> Segmentation:
        if case.id == "second":
            raise ImageError("The image is cut short; copy it again.")
        return segment(case)

    unlabelled = Case("fourth", (), None)
    other_grid = Case("fifth", (), tmp_path / "small.nii.gz")
    sitk.WriteImage(sitk.Image([2, 2, 2], sitk.sitkUInt8), str(tmp_path / "small.nii.gz"))
    scores = evaluate(fail_on_second, [*cases, unlabelled, other_grid], labels=TABLE)
    reasons = {case.case: case.failure for case in scores.failures}
    assert reasons["second"] == "The image is cut short; copy it again."
    assert "no label map" in reasons["fourth"]
    assert "does not lie on the grid" in reasons["fifth"]
    assert {row["case"] for row in scores.rows} == {"first", "third"}


def test_an_unforeseen_error_is_a_failure_of_its_case_alone(cases):
    def crash(case: Case) -> Segmentation:
        raise ZeroDivisionError

    scores = evaluate(crash, cases, labels=TABLE)
    assert [case.failure for case in scores.failures] == ["ZeroDivisionError()"] * 3


def test_a_cancel_ends_the_evaluation(cases):
    seen = []

    def count(case: Case) -> Segmentation:
        seen.append(case.id)
        return segment(case)

    with pytest.raises(Cancelled):
        evaluate(count, cases, labels=TABLE, cancelled=lambda: bool(seen))
    assert seen == ["first"]


def test_files_hold_every_row_and_null_for_what_is_no_number(cases, tmp_path):
    def fail_on_second(case: Case) -> Segmentation:
        if case.id == "second":
            raise ImageError("No.")
        return segment(case)

    scores = evaluate(fail_on_second, cases, labels=TABLE, tolerance_mm=2.5)
    data = json.loads(Path(scores.to_json(tmp_path / "scores.json")).read_text())
    assert data["tolerance_mm"] == 2.5
    assert data["failures"] == [{"case": "second", "reason": "No."}]
    third = next(r for r in data["cases"] if (r["case"], r["structure"]) == ("third", "Core"))
    assert third["dice"] == 0 and third["hd95_mm"] is None
    with open(scores.to_csv(tmp_path / "scores.csv"), encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["case"], row["structure"]) for row in rows] == [
        ("first", "Core"),
        ("first", "Rim"),
        ("third", "Core"),
        ("third", "Rim"),
        ("second", ""),
    ]
    assert rows[-1]["failure"] == "No." and rows[2]["hd95_mm"] == "inf"
