"""Channel-wise distributions and correlations: the numbers by hand, and what leaves them alone."""

from __future__ import annotations

import math

import pytest
import torch

from DistillSegLib.distill.generic import DIST, ChannelWise
from DistillSegLib.distill.views import Batch, View

NOTHING = Batch(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.int64))


def logits(*channels: list[float]) -> View:
    """One sample; a row for each channel, a column for each voxel."""
    return View(torch.tensor(channels).reshape(1, len(channels), 1, 1, -1))


def soft(*values: float) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


# Channel-wise distributions


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_two_channels_of_three_voxels_by_hand(temperature):
    t = temperature
    first = divergence(soft(3 / t, 0, 1 / t), soft(0, 1 / t, 2 / t))
    second = divergence(soft(0, 0, 0), soft(1 / t, -1 / t, 0))
    expected = t**2 * (first + second) / 2
    if t == 1.0:  # softmax over the voxels of [3, 0, 1] is [.843795, .042010, .114195]
        by_hand = 0.843795 * (
            -0.169846 + 2.407606
        )  # and of [0, 1, 2] is [.090031, .244728, .665241]
        by_hand += 0.042010 * (-3.169846 + 1.407606) + 0.114195 * (-2.169846 + 0.407606)
        assert first == pytest.approx(by_hand, abs=1e-5)
    student, teacher = logits([0.0, 1, 2], [1.0, -1, 0]), logits([3.0, 0, 1], [5.0, 5, 5])
    loss = ChannelWise(temperature)(NOTHING, student, teacher).item()
    assert loss == pytest.approx(expected, abs=1e-5)


def test_a_number_added_to_a_channel_changes_nothing():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 2, 3, 4), torch.randn(2, 3, 2, 3, 4)
    offset = torch.randn(2, 3, 1, 1, 1)
    loss = ChannelWise()(NOTHING, View(student), View(teacher)).item()
    moved = ChannelWise()(NOTHING, View(student + offset), View(teacher)).item()
    assert moved == pytest.approx(loss, rel=1e-4)
    whole = torch.randn(2, 1, 2, 3, 4)  # of all classes at a voxel: no channel looks as before
    assert ChannelWise()(NOTHING, View(student + whole), View(teacher)).item() > 1.05 * loss


def test_a_number_added_to_all_classes_of_a_voxel_counts_unless_centred():
    """No prediction shows it."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 2, 3, 4), torch.randn(2, 3, 2, 3, 4)
    whole = 5 * torch.randn(2, 1, 2, 3, 4)
    plain, centred = ChannelWise(), ChannelWise(centred=True)
    loss = centred(NOTHING, View(student), View(teacher)).item()
    moved = View(student + whole)
    assert centred(NOTHING, moved, View(teacher)).item() == pytest.approx(loss, rel=1e-4)
    led = View(teacher + whole)
    assert centred(NOTHING, View(student), led).item() == pytest.approx(loss, rel=1e-4)
    assert plain(NOTHING, moved, View(teacher)) > 2 * plain(NOTHING, View(student), View(teacher))
    undecided = logits([0.0, 1, 2], [0.0, 1, 2])
    assert centred(NOTHING, undecided, logits([7.0, 7, 7], [7.0, 7, 7])).item() == 0
    with pytest.raises(ValueError, match=r"centred is for logits, .* taps are \['encoder/0'\]"):
        ChannelWise(taps=("encoder/0",), centred=True)


def test_features_are_compared_in_place_of_logits_as_a_mean_over_taps():
    torch.manual_seed(0)
    one, other = torch.randn(2, 5, 2, 2, 4), torch.randn(2, 5, 2, 2, 4)
    coarse = torch.randn(2, 7, 1, 1, 2)
    student = View(torch.zeros(2, 3, 2, 2, 4), {"encoder/0": one, "encoder/1": coarse})
    teacher = View(torch.ones(2, 4, 2, 2, 4), {"encoder/0": other, "encoder/1": coarse})
    as_logits = ChannelWise()(NOTHING, View(one), View(other)).item()
    alone = ChannelWise(taps=("encoder/0",))(NOTHING, student, teacher).item()
    both = ChannelWise(taps=("encoder/0", "encoder/1"))(NOTHING, student, teacher).item()
    assert alone == pytest.approx(as_logits) and both == pytest.approx(as_logits / 2)


@pytest.mark.parametrize("shape", [(2, 6, 2, 2, 4), (2, 5, 1, 1, 2)])
def test_features_of_another_shape_are_refused(shape):
    student = View(torch.zeros(2, 3, 2, 2, 4), {"encoder/0": torch.zeros(2, 5, 2, 2, 4)})
    teacher = View(torch.zeros(2, 3, 2, 2, 4), {"encoder/0": torch.zeros(shape)})
    with pytest.raises(ValueError, match=r"'encoder/0' is .* \(2, 5, 2, 2, 4\) of the student and"):
        ChannelWise(taps=("encoder/0",))(NOTHING, student, teacher)


# Correlations


def shares(*voxels: list[float]) -> View:
    """Logits whose softmax gives each voxel these probabilities."""
    rows = torch.tensor(voxels).T  # (K, N)
    return View(rows.log().reshape(1, len(rows), 1, 1, -1))


STUDENT = shares([0.6, 0.3, 0.1], [0.2, 0.2, 0.6])
TEACHER = shares([0.5, 0.4, 0.1], [0.1, 0.3, 0.6])


def test_two_voxels_of_three_classes_by_hand():
    third = 1 / 3  # the mean of three probabilities
    # voxel 1: (.6, .3, .1) - 1/3 and (.5, .4, .1) - 1/3
    product = (0.6 - third) * (0.5 - third) + (0.3 - third) * (0.4 - third) + (0.1 - third) ** 2
    ours = math.sqrt(0.36 + 0.09 + 0.01 - third)  # sum of squares less 3 (1/3)^2
    theirs = math.sqrt(0.25 + 0.16 + 0.01 - third)
    first = product / (ours * theirs)  # .096667 / (.355903 * .294392)
    assert first == pytest.approx(0.922613, abs=1e-5)
    # voxel 2: (.2, .2, .6) and (.1, .3, .6)
    product = 0.02 + 0.06 + 0.36 - third
    second = product / math.sqrt((0.04 + 0.04 + 0.36 - third) * (0.01 + 0.09 + 0.36 - third))
    assert second == pytest.approx(0.917663, abs=1e-5)
    between = 1 - (first + second) / 2
    # classes over the two voxels: .6 > .2 as .5 > .1: 1; .3 > .2 as .4 > .3: 1; .1 < .6 twice: 1
    assert DIST(gamma=0.0)(NOTHING, STUDENT, TEACHER).item() == pytest.approx(between, abs=1e-6)
    assert DIST(beta=0.0)(NOTHING, STUDENT, TEACHER).item() == pytest.approx(0.0, abs=1e-6)
    # the teacher's second class the other way round: its correlation is -1, the mean 1/3
    other = shares([0.5, 0.3, 0.2], [0.1, 0.4, 0.5])
    assert DIST(beta=0.0)(NOTHING, STUDENT, other).item() == pytest.approx(2 / 3, abs=1e-6)
    both = DIST(beta=3.0, gamma=0.5)(NOTHING, STUDENT, TEACHER).item()
    assert both == pytest.approx(3 * between, abs=1e-5)


def test_a_temperature_divides_the_logits_and_multiplies_the_loss_by_its_square():
    hot = View(STUDENT.logits * 2), View(TEACHER.logits * 2)
    loss = DIST()(NOTHING, STUDENT, TEACHER).item()
    assert DIST(temperature=2.0)(NOTHING, *hot).item() == pytest.approx(4 * loss, rel=1e-4)


def test_the_samples_of_a_class_are_all_voxels_of_the_batch():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 2, 2, 2), torch.randn(2, 3, 2, 2, 2)
    in_a_row = [maps.transpose(0, 1).reshape(1, 3, 1, 1, -1) for maps in (student, teacher)]
    whole = DIST()(NOTHING, View(student), View(teacher)).item()
    assert DIST()(NOTHING, *map(View, in_a_row)).item() == pytest.approx(whole, rel=1e-5)


def test_probabilities_scaled_and_moved_correlate_fully():
    """q -> 1/3 + (q - 1/3) / 2 keeps every correlation between classes and within a class."""
    torch.manual_seed(0)
    q = torch.rand(1, 3, 2, 3, 4).softmax(1)
    squeezed = View((1 / 3 + (q - 1 / 3) / 2).log())
    assert DIST()(NOTHING, squeezed, View(q.log())).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 1e4])
def test_constant_rows_correlate_with_nothing_and_give_no_nan(value):
    student = torch.full((1, 3, 2, 2, 2), value).requires_grad_()  # 1/3 everywhere
    loss = DIST()(NOTHING, View(student), View(torch.randn(1, 3, 2, 2, 2)))
    loss.backward()
    assert loss.item() == pytest.approx(2.0, abs=1e-6)  # 1 - 0 of each part
    assert not student.grad.any()


@pytest.mark.parametrize("classes", [2, 3])
def test_voxels_of_equal_logits_pull_no_harder_than_others(classes):
    """Among logits of 16 bits ties are common, and each would outweigh a whole volume."""
    torch.manual_seed(0)
    student = torch.randn(1, classes, 4, 8, 8)
    student[:, :, 1] = 0.25
    student[:, :, 2] = torch.randn(classes, 1, 1) * 1e-3
    student.requires_grad_()
    DIST()(NOTHING, View(student), View(torch.randn(1, classes, 4, 8, 8) * 3)).backward()
    pull = student.grad.abs().amax(dim=(0, 1, 3, 4))  # of each slice
    assert max(pull[1], pull[2]) < 3 * max(pull[0], pull[3])


def test_two_classes_agree_or_not_between_each_other():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 1, 2, 4, 4, 4) * 20  # nowhere undecided
    agree = (student.argmax(1) == teacher.argmax(1)).float().mean().item()
    between = DIST(gamma=0.0)(NOTHING, View(student), View(teacher)).item()
    assert between == pytest.approx(1 - (2 * agree - 1), abs=1e-4)  # a correlation of 1 or of -1


@pytest.mark.parametrize("term", [ChannelWise, DIST])
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_temperature_is_refused(term, temperature):
    with pytest.raises(ValueError, match="use a positive number"):
        term(temperature=temperature)
