"""A model examined: calibration of its confidence, worst cases and subgroups."""

from __future__ import annotations

import math

import examine
import numpy as np
import pytest


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
