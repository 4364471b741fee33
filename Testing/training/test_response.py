"""Prediction maps: both directions of the divergence, and logits as z-scores."""

from __future__ import annotations

import pytest
import torch

from DistillSegLib.distill.response import PredictionMaps, standardise
from DistillSegLib.distill.views import Batch, View
from DistillSegLib.errors import RecipeError
from DistillSegLib.training.recipe import LinkConfig

BATCH = Batch(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.int64))


def voxel(*logits: float) -> View:
    """(1, K, 1, 1, 1)"""
    return View(torch.tensor(logits).reshape(1, -1, 1, 1, 1))


@pytest.mark.parametrize(
    ("temperature", "direction", "expected"),
    [
        (1.0, "forward", 0.169823),
        (4.0, "forward", 0.458524),
        (1.0, "reverse", 0.273209),
        (4.0, "reverse", 0.477493),
    ],
)
def test_each_direction_has_its_value_and_sends_a_gradient(temperature, direction, expected):
    student = voxel(1.0, 0.0)
    student.logits.requires_grad_()
    loss = PredictionMaps(temperature, direction)(BATCH, student, voxel(3.0, 0.0))
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    assert student.logits.grad.flatten()[0] < 0  # towards the teacher's 3


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 1.523188), (4.0, 1.959349)])
def test_opposite_answers_cost_the_same_in_either_direction(temperature, expected):
    for direction in ("forward", "reverse"):
        term = PredictionMaps(temperature, direction)
        loss = term(BATCH, voxel(2.0, 0.0), voxel(0.0, 2.0))
        assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_constant_added_at_a_voxel_changes_nothing(direction):
    """So a teacher that gives log-softmax, as the paper's does, gives logits."""
    one, other = torch.randn(2, 3, 2, 3, 4), torch.randn(2, 3, 2, 3, 4)
    term = PredictionMaps(1.0, direction)
    expected = term(BATCH, View(one), View(other)).item()
    found = term(BATCH, View(one), View(torch.log_softmax(other, dim=1))).item()
    assert found == pytest.approx(expected, abs=1e-6)


def test_z_scores_of_one_two_three():
    scores = standardise(torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1, 1))
    assert scores.flatten().tolist() == pytest.approx([-1.224745, 0, 1.224745], abs=1e-6)
    shares = torch.softmax(scores, dim=1).flatten().tolist()
    assert shares == pytest.approx([0.062556, 0.212896, 0.724548], abs=1e-6)


def test_standardised_maps_ignore_how_loudly_either_side_speaks():
    torch.manual_seed(0)
    one, other = torch.randn(2, 4, 2, 3, 4), torch.randn(2, 4, 2, 3, 4)
    term = PredictionMaps(2.0, standardise=True)
    expected = term(BATCH, View(one), View(other)).item()
    assert expected > 0.1
    assert term(BATCH, View(7 * one - 3), View(other * 5 + 2)).item() == pytest.approx(
        expected, rel=1e-4
    )
    assert term(BATCH, View(one), View(3 * one + 1)).item() == pytest.approx(0, abs=1e-6)


def test_equal_logits_have_z_scores_and_gradients_that_are_finite():
    logits = torch.ones(1, 3, 2, 2, 2, requires_grad=True)
    scores = standardise(logits)
    (scores * torch.randn(scores.shape)).sum().backward()
    assert torch.equal(scores.detach(), torch.zeros_like(scores))
    assert torch.isfinite(logits.grad).all()


def test_z_scores_of_two_classes_are_refused():
    with pytest.raises(ValueError, match="three classes or more, found 2"):
        PredictionMaps(standardise=True)(BATCH, voxel(1.0, 0.0), voxel(3.0, 0.0))


def test_an_unknown_direction_names_the_known_ones():
    with pytest.raises(RecipeError, match="did you mean 'reverse'"):
        LinkConfig("prediction_maps", settings={"direction": "revers"}).build()


def test_voxels_of_equal_logits_pull_no_harder_than_others_when_standardised():
    torch.manual_seed(0)
    student = torch.randn(1, 3, 4, 8, 8)
    student[:, :, 1] = 0.25
    student[:, :, 2] = torch.randn(3, 1, 1) * 1e-3
    student.requires_grad_()
    teacher = View(torch.randn(1, 3, 4, 8, 8) * 3)
    PredictionMaps(standardise=True)(BATCH, View(student), teacher).backward()
    pull = student.grad.abs().amax(dim=(0, 1, 3, 4))  # of each slice
    assert max(pull[1], pull[2]) < 20 * max(pull[0], pull[3])
