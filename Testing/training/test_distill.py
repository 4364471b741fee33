"""The step: numbers by hand, taps, roles and links, and the rehearsal.

What holds for every term is in `test_laws.py`.
"""

from __future__ import annotations

import math
import weakref

import pytest
import torch
from torch import nn

from DistillSegLib.distill.distillation import Distillation, Link
from DistillSegLib.distill.response import PredictionMaps
from DistillSegLib.distill.supervised import LabelLoss
from DistillSegLib.distill.views import Batch, Tapped, View, resize_label
from DistillSegLib.errors import RecipeError
from DistillSegLib.networks.unet import UNet


def network(seed: int, classes: int = 3, **settings) -> UNet:
    """Five levels with side heads, so that every tap a term may ask for exists."""
    torch.manual_seed(seed)
    return UNet(1, classes, (4, 4, 4, 4, 4), deep_supervision=True, dropout=0.2, **settings)


def batch(seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    image = torch.randn((2, 1, 16, 16, 32), generator=random)
    label = torch.randint(3, (2, 16, 16, 32), generator=random)
    return Batch(image, label, domain=torch.tensor([0, 1]))


def test_a_frozen_network_ignores_dropout_also_while_others_train():
    student, teacher = Tapped(network(1)), Tapped(network(2))
    links = {"maps": Link(PredictionMaps())}
    distillation = Distillation({"student": student}, {"teacher": teacher}, links)
    distillation.train()
    first, second = (distillation.views(batch())["teacher"].logits for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad


# Numbers


def voxel(*logits: float) -> View:
    """(1, K, 1, 1, 1)"""
    return View(torch.tensor(logits).reshape(1, -1, 1, 1, 1))


@pytest.mark.parametrize(
    ("student", "teacher", "temperature", "expected"),
    [
        ((2, 0), (0, 2), 1.0, 1.523188),
        ((2, 0), (0, 2), 4.0, 1.959349),
        ((1, 0), (3, 0), 1.0, 0.169823),  # KL(teacher || student); the other order gives 0.273209
        ((1, 0), (3, 0), 4.0, 0.458524),
    ],
)
def test_prediction_maps_at_one_voxel(student, teacher, temperature, expected):
    term = PredictionMaps(temperature)
    student, teacher = voxel(*map(float, student)), voxel(*map(float, teacher))
    assert term(batch(), student, teacher).item() == pytest.approx(expected, abs=1e-6)


def test_prediction_maps_are_a_mean_over_voxels_and_blind_to_an_offset():
    one, other = (torch.randn(2, 3, 4, 5, 6) for _ in range(2))
    term = PredictionMaps(3.0)
    whole = term(batch(), View(one), View(other))
    columns = [
        term(batch(), View(one[..., i : i + 1]), View(other[..., i : i + 1])) for i in range(6)
    ]
    assert whole.item() == pytest.approx(sum(columns).item() / 6, rel=1e-5)
    offset = torch.randn(2, 1, 4, 5, 6)
    assert term(batch(), View(one), View(other + offset)).item() == pytest.approx(
        whole.item(), rel=1e-4
    )


def test_prediction_maps_compute_in_32_bits_whatever_they_are_given():
    logits = torch.randn(1, 3, 4, 4, 4)
    term = PredictionMaps()
    assert term(batch(), View(logits.bfloat16()), View(logits.bfloat16())).dtype == torch.float32


def test_label_loss_of_an_undecided_network_is_half_plus_the_logarithm_of_two():
    label = torch.zeros(1, 2, 2, 2, dtype=torch.int64)
    label[:, 0] = 1  # 4 of 8 voxels; every probability is 1/2: Dice 2 * 2 / (4 + 4)
    view = View(torch.zeros(1, 2, 2, 2, 2))
    given = Batch(torch.zeros(1, 1, 2, 2, 2), label)
    assert LabelLoss()(given, view).item() == pytest.approx(0.5 + math.log(2), abs=1e-4)
    assert LabelLoss(cross_entropy=0.0)(given, view).item() == pytest.approx(0.5, abs=1e-4)
    assert LabelLoss(dice=0.0)(given, view).item() == pytest.approx(math.log(2), abs=1e-6)


def test_a_side_head_counts_half_as_much_as_the_output_above_it():
    label = torch.zeros(1, 2, 2, 2, dtype=torch.int64)
    label[:, :, :, 1] = 1
    given = Batch(torch.zeros(1, 1, 2, 2, 2), label)
    sure = torch.stack([1 - label, label], dim=1) * 100.0 - 50  # right everywhere
    undecided = torch.zeros(1, 2, 1, 1, 1)  # its label is that of a voxel beside the middle
    loss = LabelLoss(taps=("logits/1",), dice=0.0)(given, View(sure, {"logits/1": undecided}))
    assert loss.item() == pytest.approx(0.5 * math.log(2) / 1.5, abs=1e-6)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_a_label_is_brought_to_a_coarser_grid_without_being_moved(stride):
    """Half a fine voxel at most, whatever the stride: there is none in the very middle."""
    size = 8 * stride
    label = torch.arange(size).reshape(1, 1, 1, -1).expand(1, size, size, size)
    resized = resize_label(label, torch.zeros(1, 7, 8, 8, 8))
    middle = torch.arange(8) * stride + (stride - 1) / 2
    assert torch.equal(resized[0, 0, 0] - middle, torch.full((8,), 0.5))
    assert resize_label(label, torch.zeros(1, 7, size, size, size)) is label


# Taps


def test_taps_of_a_slice_wise_network_are_volumes_too():
    given = batch()
    view = Tapped(network(1, dims=2), ("encoder/1", "logits/1"))(given)
    assert view.taps["encoder/1"].shape == (2, 4, 16, 8, 16)  # depth is kept
    assert view.taps["logits/1"].shape == (2, 3, 16, 8, 16)


def test_taps_do_not_outlive_the_step():
    tapped = Tapped(network(1), ("encoder/0",))
    first, second = tapped(batch(0)), tapped(batch(1))
    assert first.taps["encoder/0"].shape == second.taps["encoder/0"].shape == (2, 4, 16, 16, 32)
    assert not tapped._seen


def test_features_are_not_collected_while_the_network_is_validated_alone():
    """Hooks stay on; a volume of many windows would fill the memory."""
    tapped = Tapped(UNet(1, 3, (4, 8)), ("encoder/0",))
    kept = []
    for _ in range(2):
        features = []
        hook = tapped.net.encoder[0].register_forward_hook(
            lambda _m, _i, output, features=features: features.append(weakref.ref(output))
        )
        with torch.no_grad():
            tapped.net(batch().image)
        hook.remove()
        kept += [feature() for feature in features]
    assert kept == [None, None]


def test_an_unknown_tap_names_the_nearest():
    with pytest.raises(ValueError, match="UNet has no tap 'encodr/1'; did you mean 'encoder/1'"):
        Tapped(network(1), ("encodr/1",))


# Roles, links and the rehearsal


def convolution(classes: int, *, stride: int = 1) -> Tapped:
    return Tapped(nn.Conv3d(1, classes, stride, stride=stride), paths={})


def test_a_guide_that_is_itself_trained_learns_from_its_own_link_only():
    roles = {role: convolution(3) for role in ("assistant", "student")}
    links = {
        "label": Link(LabelLoss(), student="assistant"),
        "lesson": Link(PredictionMaps(), student="student", teacher="assistant"),
    }
    losses = Distillation(roles, {}, links)(batch())
    alone = torch.autograd.grad(losses["label"], roles["assistant"].net.weight, retain_graph=True)
    both = torch.autograd.grad(losses["total"], roles["assistant"].net.weight)
    assert torch.equal(alone[0], both[0])


def test_the_total_is_the_weighted_sum():
    links = {"label": Link(LabelLoss(), 2.0), "maps": Link(PredictionMaps(), 0.5)}
    losses = Distillation({"student": convolution(3)}, {"teacher": convolution(3)}, links)(batch())
    assert losses["total"].item() == pytest.approx(
        2 * losses["label"].item() + 0.5 * losses["maps"].item()
    )


@pytest.mark.parametrize(
    ("trained", "frozen", "links", "sentence"),
    [
        (["student"], [], {"maps": Link(PredictionMaps())}, "needs a guide, found 'teacher'"),
        (
            ["student"],
            ["teacher"],
            {"maps": Link(PredictionMaps(), teacher=None)},
            "needs a guide, found 'None'",
        ),
        (["student"], [], {"label": Link(LabelLoss(), student="studnet")}, "mean 'student'"),
        (["student"], ["student"], {"label": Link(LabelLoss())}, "both trained and frozen"),
        (["student"], [], {"total": Link(LabelLoss())}, "called 'total'"),
        (
            ["student"],
            [],
            {"maps": Link(PredictionMaps(), teacher="student")},
            "'student' as student and as teacher",
        ),
    ],
)
def test_roles_and_links_that_do_not_fit_are_refused(trained, frozen, links, sentence):
    with pytest.raises(RecipeError, match=sentence):
        Distillation(
            {role: convolution(3) for role in trained},
            {role: convolution(3) for role in frozen},
            links,
        )


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        (convolution(4), "'student' has 3 classes, 'teacher' has 4"),
        (convolution(3, stride=2), r"'student' answers on \(16, 16, 32\) voxels, 'teacher' on"),
    ],
)
def test_rehearsal_names_a_teacher_that_does_not_fit(teacher, sentence):
    links = {"maps": Link(PredictionMaps())}
    distillation = Distillation({"student": convolution(3)}, {"teacher": teacher}, links)
    with pytest.raises(RecipeError, match=sentence) as stopped:
        distillation.rehearse(batch())
    (table,) = stopped.value.__notes__
    assert "student 6 (2, 3, 16, 16, 32)" in " ".join(table.split())


def test_rehearsal_adds_the_link_to_what_a_term_refuses():
    class Choosy(PredictionMaps):
        def __call__(self, batch, student, teacher):
            raise ValueError("the batch holds one domain only; give a second one.")

    links = {"agreement": Link(Choosy())}
    distillation = Distillation({"student": convolution(3)}, {"teacher": convolution(3)}, links)
    with pytest.raises(RecipeError, match="Link 'agreement': the batch holds one domain only"):
        distillation.rehearse(batch())


def test_rehearsal_names_trained_weights_that_no_loss_reaches():
    links = {"label": Link(LabelLoss())}
    with pytest.raises(RecipeError, match=r"No loss reaches 6 trained weights \(student.net.heads"):
        Distillation({"student": Tapped(network(1))}, {}, links).rehearse(batch())


def test_rehearsal_names_a_loss_that_is_not_finite():
    image, label, *_ = batch()
    links = {"label": Link(LabelLoss())}
    distillation = Distillation({"student": convolution(3)}, {}, links)
    with pytest.raises(RecipeError, match="Link 'label' gives nan on the first batch"):
        distillation.rehearse(Batch(image * torch.nan, label))


def test_rehearsal_tells_what_is_trained_and_changes_no_weight():
    student, teacher = Tapped(UNet(1, 3, (4, 8)), ("encoder/1",)), convolution(3)
    links = {"maps": Link(PredictionMaps())}
    distillation = Distillation({"student": student}, {"teacher": teacher}, links)
    before = [weight.clone() for weight in distillation.parameters()]
    table = distillation.rehearse(batch())
    squeezed = " ".join(table.split())
    assert "encoder/1 (2, 8, 8, 8, 16)" in squeezed
    assert "teacher 6 (2, 3, 16, 16, 32) frozen" in squeezed
    assert "1 x PredictionMaps(temperature=2.0" in squeezed
    after = list(distillation.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(weight.grad is None for weight in after)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="use a positive number"):
        PredictionMaps(temperature=0.0)
