"""What a network thinks of its own answer."""

from __future__ import annotations

import numpy as np
import pytest

from DistillSegLib import confidence
from DistillSegLib.confidence import mean_by_class, probability


def softmax(logits):
    shares = np.exp(logits.astype(np.float64))
    return shares / shares.sum(axis=0)


def test_the_probability_is_the_largest_of_the_softmax():
    logits = np.random.default_rng(0).normal(size=(5, 3, 4, 6)).astype(np.float32) * 4
    np.testing.assert_allclose(probability(logits), softmax(logits).max(axis=0), rtol=1e-6)


def test_large_logits_do_not_overflow():
    assert probability(np.float32([[1e4], [-1e4]])).tolist() == [1.0]


def test_each_class_has_the_mean_of_its_own_voxels_and_the_background_none():
    logits = np.random.default_rng(1).normal(size=(4, 6, 7, 8)).astype(np.float32)
    logits[2] = -9  # never chosen
    winners = logits.argmax(axis=0).astype(np.uint8)
    highest = softmax(logits).max(axis=0)
    found = mean_by_class(logits, winners)
    assert found == {k: pytest.approx(highest[winners == k].mean(), rel=1e-6) for k in (1, 3)}


def test_a_large_structure_is_sampled_evenly(monkeypatch):
    logits = np.random.default_rng(2).normal(size=(2, 40, 40, 40)).astype(np.float32)
    winners = logits.argmax(axis=0).astype(np.uint8)
    exact = mean_by_class(logits, winners)[1]
    monkeypatch.setattr(confidence, "MOST", 5000)
    sampled = mean_by_class(logits, winners)[1]
    assert sampled != exact and sampled == pytest.approx(exact, rel=0.01)


def test_a_temperature_divides_the_logits():
    """At T = 2, logits of 2 log 3 and 0 are those of 3 to 1, and 2 log 9 and 0 those of 9 to 1."""
    logits = np.zeros((2, 1, 1, 4), np.float32)
    logits[1, 0, 0, :2] = 2 * np.log([3, 9])
    logits[0, 0, 0, 2:] = 2 * np.log([3, 9])
    assert probability(logits, 2.0).ravel() == pytest.approx([0.75, 0.9, 0.75, 0.9])
    winners = logits.argmax(axis=0)
    assert mean_by_class(logits, winners, temperature=2.0) == {1: pytest.approx((0.75 + 0.9) / 2)}
    assert mean_by_class(logits, winners) == {1: pytest.approx((9 / 10 + 81 / 82) / 2)}


def test_no_temperature_changes_which_class_is_the_most_probable():
    logits = np.random.default_rng(3).normal(size=(3, 4, 5, 6)).astype(np.float32)
    hot = probability(logits, 9.0)
    assert (hot < probability(logits)).all() and (hot > 1 / 3).all()


def test_classes_may_come_one_after_the_other():
    logits = np.random.default_rng(4).normal(size=(6, 3, 4, 5)).astype(np.float32) * 5
    np.testing.assert_array_equal(probability(iter(logits), 1.5), probability(logits, 1.5))


def test_a_coarse_cell_is_looked_at_where_its_voxels_lie():
    """Two cells along x: voxels at -0.25, 0.25, 0.75 and 1.25 of the way, the outer ones repeated.

    The margin of class 1 falls from 8 to -8: 8, 8 - 16/4 = 4, then -4 and -8.
    """
    logits = np.zeros((2, 1, 1, 2), np.float32)
    logits[1] = [8, -8]
    found = mean_by_class(logits, logits.argmax(axis=0), stride=2)
    assert found == {1: pytest.approx((1 / (1 + np.exp(-8)) + 1 / (1 + np.exp(-4))) / 2)}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_cells_are_interpolated_along_every_axis_as_scipy_does(axis):
    zoom = pytest.importorskip("scipy.ndimage").map_coordinates
    logits = np.random.default_rng(5 + axis).normal(size=(3, 4, 5, 6)).astype(np.float32) * 3
    logits = np.roll(logits, axis, axis=0)
    winners = logits.argmax(axis=0)
    at = [((np.arange(2 * n) + 0.5) / 2 - 0.5) for n in winners.shape]
    places = np.meshgrid(*at, indexing="ij")
    fine = np.stack([zoom(each, places, order=1, mode="nearest") for each in logits])
    own = winners.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    highest = softmax(fine).max(axis=0)
    found = mean_by_class(logits, winners, stride=2)
    assert found == {k: pytest.approx(highest[own == k].mean(), rel=1e-5) for k in (1, 2)}


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_samples_of_a_large_structure_lie_at_every_place_of_a_cell(monkeypatch, stride):
    monkeypatch.setattr(confidence, "MOST", 500)
    chosen = confidence._spread(600 * stride**3, stride)
    assert 250 < len(chosen) <= 500
    often = np.bincount(chosen % stride**3, minlength=stride**3)
    assert often.max() - often.min() <= 1
