"""EMKD's terms: the values worked by hand, their invariances, and all of them between networks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from DistillSegLib.distill.distillation import Distillation, Link
from DistillSegLib.distill.emkd import FocalDice, ImportanceMaps, RegionAffinity, shares
from DistillSegLib.distill.response import PredictionMaps
from DistillSegLib.distill.views import Batch, Tapped, View
from DistillSegLib.networks.enet import ENet
from DistillSegLib.networks.raunet import RAUNet
from DistillSegLib.networks.unet import UNet

TAP = ("encoder/1",)


def batch_of(label: Tensor) -> Batch:
    return Batch(torch.zeros(len(label), 1, *label.shape[1:]), label)


def row(*values: int) -> Tensor:
    """(1, 1, 1, W) labels."""
    return torch.tensor(values).reshape(1, 1, 1, -1)


def view(*channels: list[float], classes: int = 2) -> View:
    """One row of voxels; (1, C, 1, 1, W) features."""
    features = torch.tensor(channels, dtype=torch.float32)[None, :, None, None]
    return View(torch.zeros(1, classes, *features.shape[2:]), {"encoder/1": features})


def seen(features: Tensor, classes: int = 3) -> View:
    return View(torch.zeros(len(features), classes, *features.shape[2:]), {"encoder/1": features})


# Importance maps


@pytest.mark.parametrize(("power", "expected"), [(1.0, 0.0), (2.0, 0.4), (4.0, 1.507692)])
def test_importance_of_two_voxels(power, expected):
    term = ImportanceMaps(TAP, power)
    student, teacher = view([1, 2], [1, 0]), view([2, 1], [0, 1])
    assert term(batch_of(row(0, 1)), student, teacher).item() == pytest.approx(expected, abs=1e-6)


def test_importance_maps_to_the_fourth_are_the_published_ones():
    """Against maps of one voxel each: 2 - 2 a_1 and 2 - 2 a_2."""
    term, given = ImportanceMaps(TAP, 4.0), batch_of(row(0, 1))
    student = view([1, 2], [1, 0])
    first = term(given, student, view([1, 0])).item()
    second = term(given, student, view([0, 1])).item()
    assert first == pytest.approx(2 - 2 * 0.124035, abs=2e-6)
    assert second == pytest.approx(2 - 2 * 0.992278, abs=2e-6)


@pytest.mark.parametrize("per", ["volume", "slice"])
@pytest.mark.parametrize("power", [1.0, 4.0])
def test_importance_ignores_scale_sign_and_the_order_of_channels(power, per):
    one, other = torch.randn(2, 5, 2, 3, 4), torch.randn(2, 7, 2, 3, 4)
    term, given = ImportanceMaps(TAP, power, per), batch_of(torch.zeros(2, 2, 3, 4).long())
    expected = term(given, seen(one), seen(other)).item()
    changed = seen(1e-6 * one[:, [3, 1, 4, 0, 2]])
    assert 0 < expected <= 2
    assert term(given, changed, seen(-1e6 * other)).item() == pytest.approx(expected, rel=1e-4)
    assert term(given, seen(one), seen(-3 * one)).item() == pytest.approx(0, abs=1e-6)


def test_importance_is_two_at_most_and_summed_over_taps():
    left, right = view([1, 0]), view([0, 1])
    for name in ("encoder/3",):
        left.taps[name], right.taps[name] = left.taps["encoder/1"], right.taps["encoder/1"]
    given = batch_of(row(0, 1))
    assert ImportanceMaps(TAP)(given, left, right).item() == pytest.approx(2)
    assert ImportanceMaps()(given, left, right).item() == pytest.approx(4)


def test_importance_per_slice_gives_every_slice_the_same_say():
    """Two slices of two voxels; the student's second slice is faint, and the other way round."""
    teacher = torch.tensor([[[[[3.0, 4]], [[3, 4]]]]])
    student = torch.tensor([[[[[30.0, 40]], [[0.4, 0.3]]]]])
    given = batch_of(torch.zeros(1, 2, 1, 2).long())
    each = ImportanceMaps(TAP, per="slice")(given, seen(student), seen(teacher)).item()
    assert each == pytest.approx((0 + 2 * 0.2**2) / 2)
    whole = ImportanceMaps(TAP)(given, seen(student), seen(teacher)).item()
    cosine = (90 + 160 + 1.2 + 1.2) / math.hypot(30, 40, 0.4, 0.3) / math.hypot(3, 4, 3, 4)
    assert whole == pytest.approx(2 - 2 * cosine, abs=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ([1, 3, 2, 6], [2, 4], 0),  # averages
        ([0, 0, 0, 4, 2, 2, 2, 2], [1, 2], 0),  # of all four, not of the two in the middle
        ([2, 4], [2, 2.5, 3.5, 4], 0),  # linear interpolation, half-pixel centres
    ],
)
def test_the_student_s_map_is_brought_to_the_teacher_s_grid(student, teacher, expected):
    found = ImportanceMaps(TAP)(batch_of(row(0, 1)), view(student), view(teacher)).item()
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_silent_network_has_no_map_and_a_finite_gradient():
    features = torch.zeros(1, 2, 1, 1, 4, requires_grad=True)
    loss = ImportanceMaps(TAP)(batch_of(row(0, 0, 1, 1)), seen(features), view([1, 2, 3, 4]))
    loss.backward()
    assert loss.item() == pytest.approx(1)  # |0 - a|^2
    assert torch.isfinite(features.grad).all()


# Region affinity


def test_affinity_of_two_regions():
    student, teacher = view([1, 1, 0, 0], [0, 0, 1, 1]), view([1, 1, 1, 1], [0, 0, 1, 1])
    given = batch_of(row(0, 0, 1, 1))
    term = RegionAffinity(TAP)
    assert term(given, student, teacher).item() == pytest.approx(0.5, abs=1e-6)
    level = view([1, 1, 0, 0], [0, 0, 1, 1])  # V = 0 against V: V^2
    assert term(given, teacher, level).item() == pytest.approx(0.707107**2, abs=1e-6)
    opposite = view([1, 1, -1, -1]), view([1, 1, 1, 1])
    assert term(given, *opposite).item() == pytest.approx(4)  # the largest there is


def test_affinity_sums_over_all_pairs_of_regions():
    """V of the student: 0 for all pairs; of the teacher: (0,1) 1, (0,2) 0, (1,2) 0."""
    student = view([1, 0, 0], [0, 1, 0], [0, 0, 1], classes=3)
    teacher = view([1, 1, 0], [0, 0, 0], [0, 0, 1], classes=3)
    given = batch_of(row(0, 1, 2))
    assert RegionAffinity(TAP)(given, student, teacher).item() == pytest.approx(1, abs=1e-6)
    teacher = view([1, 1, 1], [0, 0, 1], classes=3)  # (0,1) 1, (0,2) and (1,2) 1 / sqrt 2
    assert RegionAffinity(TAP)(given, student, teacher).item() == pytest.approx(2, abs=1e-6)


def test_affinity_ignores_rotation_scale_and_order_within_regions():
    label = torch.randint(3, (2, 2, 4, 6))
    one, other = torch.randn(2, 5, 2, 4, 6), torch.randn(2, 4, 2, 4, 6)
    term, given = RegionAffinity(TAP), batch_of(label)
    expected = term(given, seen(one), seen(other)).item()
    turn, _ = torch.linalg.qr(torch.randn(5, 5))
    turned = 1e5 * torch.einsum("ij,bjdhw->bidhw", turn, one)
    assert term(given, seen(turned), seen(other)).item() == pytest.approx(expected, rel=1e-3)
    for sample, kind in [(0, 1), (1, 2)]:
        place = label[sample] == kind
        order = torch.randperm(int(place.sum()))
        one[sample][:, place] = one[sample][:, place][:, order]
    assert term(given, seen(one), seen(other)).item() == pytest.approx(expected, rel=1e-3)
    assert term(given, seen(one), seen(one)).item() == 0


@pytest.mark.parametrize("per", ["volume", "slice"])
@pytest.mark.parametrize("only", [0, 1, 2])
def test_a_label_of_one_region_gives_zero_and_no_gradient(only, per):
    features = torch.randn(1, 4, 2, 4, 4, requires_grad=True)
    given = batch_of(torch.full((1, 2, 4, 4), only))
    loss = RegionAffinity(TAP, per)(given, seen(features), seen(torch.randn(1, 6, 2, 4, 4)))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_absent_regions_are_passed_over():
    """Two of three regions, background not among them: the value of those two."""
    student, teacher = ([1, 1, 0, 0], [0, 0, 1, 1]), ([1, 1, 1, 1], [0, 0, 1, 1])
    given = batch_of(row(1, 1, 2, 2))
    views = view(*student, classes=3), view(*teacher, classes=3)
    assert RegionAffinity(TAP)(given, *views).item() == pytest.approx(0.5, abs=1e-6)


def test_a_sample_of_one_region_halves_the_mean_of_two():
    features = torch.randn(1, 4, 1, 2, 4)
    other = torch.randn(1, 4, 1, 2, 4)
    label = torch.tensor([[[[0, 0, 1, 1], [0, 1, 1, 0]]]])
    one = RegionAffinity(TAP)(batch_of(label), seen(features), seen(other)).item()
    both = RegionAffinity(TAP)(
        batch_of(torch.cat((label, torch.zeros_like(label)))),
        seen(features.repeat(2, 1, 1, 1, 1)),
        seen(other.repeat(2, 1, 1, 1, 1)),
    ).item()
    assert one > 0
    assert both == pytest.approx(one / 2)


def test_slices_of_one_region_do_not_count_in_a_comparison_per_slice():
    features, other = torch.randn(1, 4, 1, 2, 4), torch.randn(1, 4, 1, 2, 4)
    label = torch.tensor([[[[0, 0, 1, 1], [0, 1, 1, 0]]]])
    term = RegionAffinity(TAP, "slice")
    one = term(batch_of(label), seen(features), seen(other)).item()
    padded = [torch.cat((each, torch.randn(each.shape)), dim=2) for each in (features, other)]
    empty = torch.cat((label, torch.zeros_like(label)), dim=1)
    assert term(batch_of(empty), *map(seen, padded)).item() == pytest.approx(one)


def test_a_structure_of_one_voxel_is_seen_at_stride_8():
    label = torch.zeros(1, 16, 16, 16, dtype=torch.int64)
    label[0, 3, 5, 9] = 1
    covered = shares(label, 2, torch.zeros(1, 1, 2, 2, 2))
    assert covered[0, 1].sum().item() == pytest.approx(1 / 512)
    assert covered[0, 1, 0, 0, 1].item() == pytest.approx(1 / 512)
    features = torch.randn(1, 4, 2, 2, 2), torch.randn(1, 4, 2, 2, 2)
    assert RegionAffinity(TAP)(batch_of(label), *map(seen, features)).item() > 0


def test_features_that_vanish_in_a_region_give_a_finite_gradient():
    features = torch.tensor([[1.0, 1, 0, 0], [0, 1, 0, 0]])[None, :, None, None].requires_grad_()
    RegionAffinity(TAP)(batch_of(row(0, 0, 1, 1)), seen(features, 2), view([1, 2, 3, 4])).backward()
    assert torch.isfinite(features.grad).all()


def test_a_comparison_per_slice_needs_the_same_slices():
    label = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    views = seen(torch.randn(1, 2, 4, 2, 2)), seen(torch.randn(1, 2, 2, 2, 2))
    with pytest.raises(ValueError, match="has 4 slices, the teacher's 2"):
        RegionAffinity(TAP, "slice")(batch_of(label), *views)


# Precision and settings


@pytest.mark.parametrize("term", [ImportanceMaps(TAP, 4.0), RegionAffinity(TAP)], ids=repr)
def test_autocast_lowers_nothing(term):
    torch.manual_seed(0)
    given = batch_of(torch.randint(3, (2, 2, 8, 8)))
    views = seen(torch.randn(2, 8, 2, 8, 8)), seen(torch.randn(2, 8, 2, 8, 8))
    plain = term(given, *views)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = term(given, *views)
    assert lowered.dtype == torch.float32
    assert torch.equal(plain, lowered)


@pytest.mark.parametrize("term", [ImportanceMaps, RegionAffinity])
def test_no_taps_are_refused(term):
    with pytest.raises(ValueError, match="taps is empty"):
        term(())


def test_a_power_below_one_is_refused():
    with pytest.raises(ValueError, match="use 1 or more"):
        ImportanceMaps(power=0.5)


# The segmentation loss


def test_focal_dice_of_four_voxels():
    """p of the foreground 1/2, 1/2, 3/4, 3/4; the reference 0, 1, 0, 1."""
    foreground = torch.tensor([0.5, 0.5, 0.75, 0.75])
    logits = torch.stack((1 - foreground, foreground)).log().reshape(1, 2, 1, 1, 4)
    right = (0.5, 0.5, 0.25, 0.75)
    focal = sum(-((1 - p) ** 2) * math.log(p) for p in right) / 4
    dice = 1 - (2 * (0.5 + 0.75) + 1) / (2.5 + 2 + 1)
    given, student = batch_of(row(0, 1, 0, 1)), View(logits)
    assert FocalDice()(given, student).item() == pytest.approx(0.5 * focal + 0.5 * dice, abs=1e-5)
    assert FocalDice(dice=0.0)(given, student).item() == pytest.approx(0.5 * focal, abs=1e-6)
    assert FocalDice(focal=0.0)(given, student).item() == pytest.approx(0.5 * dice, abs=1e-6)


def test_focal_dice_sums_over_the_whole_batch():
    logits = torch.tensor([[2.0, 0, 1, 0], [0, 3, 0, 1]]).reshape(2, 1, 1, 1, 4)
    logits = torch.cat((logits, -logits), dim=1)
    label = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 1]]).reshape(2, 1, 1, 4)
    side_by_side = (torch.cat(tuple(each)[:2], dim=-1)[None] for each in (logits, label))
    one, of_one = side_by_side
    found = FocalDice()(batch_of(label), View(logits)).item()
    assert found == pytest.approx(FocalDice()(batch_of(of_one), View(one)).item(), abs=1e-6)


def test_focal_dice_of_three_classes_averages_the_structures():
    logits = torch.tensor([2.0, 0, 0]).expand(1, 1, 1, 4, 3).permute(0, 4, 1, 2, 3)
    p, q = math.exp(2) / (math.exp(2) + 2), 1 / (math.exp(2) + 2)
    focal = (2 * -((1 - p) ** 2) * math.log(p) + 2 * -((1 - q) ** 2) * math.log(q)) / 4
    dice = [1 - (2 * q * there + 1) / (4 * q + there + 1) for there in (1, 1)]
    found = FocalDice()(batch_of(row(0, 0, 1, 2)), View(logits)).item()
    assert found == pytest.approx(0.5 * focal + 0.5 * sum(dice) / 2, abs=1e-5)


# Between networks

FOUR = {
    "label": Link(FocalDice()),
    "maps": Link(PredictionMaps(1.0, "reverse"), 0.1),
    "importance": Link(ImportanceMaps(), 0.9),
    "affinity": Link(RegionAffinity(), 0.9),
}
TAPS = ("encoder/1", "encoder/3")


def volumes(depth: int = 8) -> Batch:
    torch.manual_seed(3)
    label = torch.zeros(2, depth, 32, 32, dtype=torch.int64)
    label[:, 2:, 8:24, 4:20] = 1
    label[:, 3:, 12:20, 18:28] = 2
    return Batch(label[:, None] + 0.2 * torch.randn(2, 1, depth, 32, 32), label)


def paired(student, teacher, links=FOUR) -> Distillation:
    return Distillation(
        {"student": Tapped(student, TAPS)}, {"teacher": Tapped(teacher, TAPS)}, links
    )


def net(seed: int, kind=UNet, *arguments, **settings):
    torch.manual_seed(seed)
    return kind(1, 3, *arguments, **settings)


PAIRS = {
    "two slice-wise": lambda: (net(0, ENet), net(1, RAUNet)),
    "two in 3-D": lambda: (net(0, UNet, (4, 4, 8, 8)), net(1, UNet, (4, 8, 12, 16))),
    "slices from 3-D": lambda: (net(0, UNet, (4, 4, 8, 8), dims=2), net(1, UNet, (4, 8, 12, 16))),
    "3-D from slices": lambda: (net(0, UNet, (4, 4, 8, 8)), net(1, UNet, (4, 8, 12, 16), dims=2)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_every_term_reaches_the_features_it_compares_and_no_teacher(pair):
    student, teacher = PAIRS[pair]()
    distillation = paired(student, teacher)
    given = volumes()
    distillation.train()
    views = distillation.views(given)
    for term in (ImportanceMaps(), RegionAffinity()):
        loss = term(given, views["student"], views["teacher"].detached())
        gradients = torch.autograd.grad(
            loss, list(views["student"].taps.values()), retain_graph=True
        )
        assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in gradients), term
    distillation.losses(given, views)["total"].backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(weight.grad is not None for weight in student.parameters())


def test_enet_learns_from_ra_unet_by_all_four_links():
    """Each loss falls when it is all there is, and the total with the paper's weights."""
    links = FOUR | {
        "importance": Link(ImportanceMaps(per="slice"), 0.9),
        "affinity": Link(RegionAffinity(per="slice"), 0.9),
    }
    given, teacher = volumes(4), net(1, RAUNet)
    before = [value.clone() for value in teacher.state_dict().values()]
    for name, link in links.items():
        distillation = paired(net(0, ENet, dropout=0.0), teacher, {name: link})
        assert descent(distillation, given, steps=2) < 0, name
    assert descent(paired(net(0, ENet, dropout=0.0), teacher, links), given, steps=3) < 0
    after = teacher.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def descent(distillation: Distillation, given: Batch, *, steps: int) -> float:
    """How much the total changes over some steps of Adam."""
    optimizer = torch.optim.Adam(distillation.trained.parameters(), lr=2e-3)
    distillation.train()
    totals = []
    for _ in range(steps + 1):
        total = distillation(given)["total"]
        totals.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return totals[-1] - totals[0]


@pytest.mark.parametrize("term", [ImportanceMaps(TAP, per="slice"), RegionAffinity(TAP)])
@pytest.mark.parametrize("scale", [0.0, 1e-7, 1e-5])
def test_features_that_have_died_do_not_outweigh_the_others(term, scale):
    """A slice, which is a region too, whose features are all but silent."""
    torch.manual_seed(0)
    features, label = torch.rand(1, 4, 3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.int64)
    label[:, 1], label[:, 2] = 1, 2
    features[:, :, 1] *= scale
    features.requires_grad_()
    term(batch_of(label), seen(features), seen(torch.rand(1, 4, 3, 8, 8))).backward()
    pull = features.grad.abs().amax(dim=(0, 1, 3, 4))
    assert pull[1] <= max(pull[0], pull[2])
