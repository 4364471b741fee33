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
