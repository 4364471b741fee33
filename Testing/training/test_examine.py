"""A model examined: calibration of its confidence, worst cases and subgroups."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import examine
import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.datasets import Case
from DistillSegLib.labels import Label, LabelTable
from DistillSegLib.segmentations import read_segmentation

LABELS = LabelTable((Label(1, "Ball", (1, 2, 3)), Label(2, "Cube", (4, 5, 6))))


def test_confidence_is_held_against_what_is_right():
    """Four voxels of 0.55 of which one is right, one of 0.97 that is."""
    bins = examine.binned(np.array([0.55] * 4 + [0.97]), np.array([1, 0, 0, 0, 1], bool))
    assert bins[0] == pytest.approx([4, 2.2, 1]) and bins[5] == pytest.approx([1, 0.97, 1])
    assert bins.sum() == pytest.approx(5 + 3.17 + 2)
    assert examine.expected_error(bins) == pytest.approx((4 * 0.3 + 0.03) / 5)
    assert examine.binned(np.array([1.0]), np.array([True]))[-1].tolist() == [1, 1, 1]


def test_an_examination_names_the_worst_and_tells_the_groups_apart():
    findings = [
        examine.Finding(f"p{n}_{'ED' if n % 2 else 'ES'}", "Ball", n / 10, 5.0, 10.0 - n, e, n / 10)
        for n, e in enumerate((0.5, -0.1, 0.1, -0.1, 0.1, -0.5), start=4)
    ]
    bins = examine.binned(np.array([0.9, 0.9]), np.array([True, False]))
    near = examine.binned(np.array([0.7]), np.array([True]))
    text = examine.report(findings, bins, near, {"diastole": "_ED$", "systole": "_ES$"})
    assert "**Ball**: Dice median 0.650" in text
    assert (
        "Volume +0.0 % on average (-50 % to +50 % in single cases; mean absolute error 23.3 %)"
        in text
    )
    assert text.index("| p4_ES | 0.400 | 5.0 | 6.00 | +50 % |") < text.index("| p5_ED | 0.500")
    assert "p7" not in text
    assert "| diastole | 0.700 ± 0.200 (n = 3) |" in text
    assert "| small third by volume | 0.850 ± 0.071 (n = 2) |" in text
    assert "over the cases: 1.00." in text
    assert "Expected calibration error 40.0 %; over all voxels within 2 of a structure" in text
    assert "of model or reference 30.0 %" in text
    assert "misses its Dice by 0.000 (bias +0.000)" in text


def test_a_structure_that_was_missed_has_no_distance():
    """Its confidence is not known either."""
    found = [
        examine.Finding("p1", "Tumour", 0.0, math.inf, 9.0, -1.0, None),
        examine.Finding("p2", "Tumour", 0.7, 8.0, 9.0, 0.1, 0.8),
        examine.Finding("p3", "Tumour", 0.8, 5.0, 9.0, 0.0, 0.9),
        examine.Finding("p4", "Tumour", 0.9, 5.0, 9.0, 0.0, 1.0),
    ]
    bins = examine.binned(np.array([0.9, 0.9]), np.array([True, False]))
    text = examine.report(found, bins, bins, {})
    assert "| p1 | 0.000 | missed | 9.00 | -100 % |" in text
    assert "misses its Dice by 0.100 (bias +0.100). Rank correlation over the cases: 1.00." in text
    text = examine.report(found[:3], bins, bins, {})
    assert text.endswith("(bias +0.100).\n")  # two cases have no rank to speak of


def test_phases_of_a_patient_make_one_ejection_fraction():
    """Of 100 and 40 ml 60 %; the model has 110 and 55 ml, which is 50 %. One phase makes none."""
    found = [
        examine.Finding("p1_ED", "Cavity", 0.9, 2.0, 100.0, 0.1, 0.9),
        examine.Finding("p1_ES", "Cavity", 0.8, 2.0, 40.0, 0.375, 0.8),
        examine.Finding("p2_ED", "Cavity", 0.8, 2.0, 90.0, 0.0, 0.7),
    ]
    bins = examine.binned(np.array([0.9, 0.9]), np.array([True, False]))
    text = examine.report(found, bins, bins, {"all": "p"})
    assert "Ejection fraction by patient, in %, model for reference: 50 for 60;" in text
    assert "mean absolute error 10.0 points, mean -10.0." in text
    assert "| all | 0.833 ± 0.058 (n = 3, patients: 2) |" in text
    assert "Ejection" not in examine.report(found[1:], bins, bins, {})
    assert "subgroups" not in examine.report(found[1:], bins, bins, {})


def test_a_structure_that_no_reference_has_is_no_error_of_volume():
    """Of four cases one has neither, and in one the model finds what is not there."""
    found = [
        examine.Finding("p1", "Tumour", math.nan, math.nan, 0.0, math.nan, None),
        examine.Finding("p2", "Tumour", 0.0, math.inf, 0.0, math.nan, 0.6),
        examine.Finding("p3", "Tumour", 0.6, 8.0, 9.0, -0.3, 0.8),
        examine.Finding("p4", "Tumour", 0.8, 5.0, 9.5, 0.1, 0.9),
    ]
    bins = examine.binned(np.array([0.9, 0.9]), np.array([True, False]))
    text = examine.report(found, bins, bins, {"first": "p1", "both": "p[12]"})
    assert "nan" not in text
    assert "**Tumour**: Dice median 0.600," in text
    assert "Volume -10.0 % on average (-30 % to +10 % in single cases; mean absolute" in text
    assert "False finds: 1 (the reference has none in 2 of 4 cases). Worst cases:" in text
    assert "| p2 | 0.000 | false find | 0.00 | – |" in text and "| p1 |" not in text
    assert "| first | – |" in text and "| both | 0.000 (n = 1) |" in text
    assert "third by volume" not in text  # four cases have no thirds to speak of

    text = examine.report(found[:2], bins, bins, {})
    assert "5th percentile 0.000. False finds: 1 (the reference has none in 2 of 2 cases)." in text
    text = examine.report(found[:1], bins, bins, {})
    assert "**Tumour**: no reference has it, and the model found it in no case.\n" in text


def test_a_volume_is_held_only_against_a_reference_that_has_one(tmp_path):
    """The model finds one voxel of both structures; the reference has two of the first."""
    reference, ours = np.zeros((2, 4, 5, 6), np.uint8)
    reference[1, 2, 2:4] = 1
    ours[1, 2, 2], ours[2, 3, 4] = 1, 2
    path = tmp_path / "reference.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(reference), str(path))

    class Model:
        def segment(self, images, confidence_map):
            grid = read_segmentation(path, LABELS).image
            image, sure = (
                sitk.GetImageFromArray(array) for array in (ours, np.full(ours.shape, 0.9))
            )
            image.CopyInformation(grid)
            return SimpleNamespace(image=image, confidence_map=sure, confidence={1: 0.9, 2: 0.9})

    found, given, _ = examine.examine(Model(), [Case("p1", (path,), path)], LABELS)
    assert [f.error for f in found] == pytest.approx([-0.5, math.nan], nan_ok=True)
    assert [f.reference_ml for f in found] == pytest.approx([0.002, 0])
    assert given[:, 0].sum() == 2 and given[:, 2].sum() == 1


@pytest.mark.parametrize("path", sorted(examine.CARDS.glob("*.json")), ids=lambda path: path.stem)
def test_the_analysis_of_a_bundled_model_says_what_its_scores_hold(path):
    found = []
    for row in json.loads(path.read_text(encoding="utf-8"))["cases"]:
        error = row["volume_ml"] / row["reference_ml"] - 1
        distance = math.inf if row["hd95_mm"] is None else row["hd95_mm"]
        form = (row["case"], row["structure"], row["dice"], distance, row["reference_ml"])
        found.append(examine.Finding(*form, error, None))
    bins = np.zeros((len(examine.EDGES) - 1, 3))
    said = path.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    made = examine.report(found, bins, bins, {}).split("**Confidence**")[0].splitlines()
    assert len(made) > 7 and set(made) <= set(said)
