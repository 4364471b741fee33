"""Class affinity and multi-scale distillation: the numbers by hand, and what leaves them alone."""

from __future__ import annotations

import math
from operator import mul

import pytest
import torch

from DistillSegLib.distill.lcov import ClassAffinity, MultiScale, affinity, column_gap
from DistillSegLib.distill.supervised import LabelLoss
from DistillSegLib.distill.views import Batch, View
from DistillSegLib.labels import label_table
from DistillSegLib.networks import NetworkConfig, build_network, count_parameters
from DistillSegLib.training.assembly import rehearse
from DistillSegLib.training.recipe import load_recipe

NOTHING = Batch(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.int64))
ONE_SCALE = {"taps": (), "weights": (1.0,)}
OUTPUT = {"taps": ("decoder/0",), "weights": (1.0,)}


def probabilities(rows: list[list[float]]) -> View:
    """Logits whose softmax has these rows, one for each class, one column for each voxel."""
    return View(torch.tensor(rows).clamp_min(1e-30).log().reshape(1, len(rows), 1, 1, -1))


# Class affinity


def test_affinity_of_three_voxels_by_hand():
    student = probabilities([[0.9, 0.8, 0.1], [0.1, 0.2, 0.9]])
    teacher = probabilities([[1.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    # .81 + .64 + .01, .09 + .16 + .09, .01 + .04 + .81; and 1 + .25 + .25, .25 + .25, .25 + .25
    ours = 3 * affinity(student.logits)[0]
    assert ours.tolist() == [pytest.approx([1.46, 0.34]), pytest.approx([0.34, 0.86])]
    theirs = 3 * affinity(teacher.logits)[0]
    assert theirs.tolist() == [pytest.approx([1.5, 0.5]), pytest.approx([0.5, 0.5])]
    first = (1.46 * 1.5 + 0.34 * 0.5) / (math.hypot(1.46, 0.34) * math.hypot(1.5, 0.5))
    second = (0.34 * 0.5 + 0.86 * 0.5) / (math.hypot(0.34, 0.86) * math.hypot(0.5, 0.5))
    assert (first, second) == pytest.approx((0.995683, 0.917556), abs=1e-6)
    loss = ClassAffinity(**ONE_SCALE)(NOTHING, student, teacher).item()
    assert loss == pytest.approx(1 - (first + second) / 2, abs=1e-6)
    assert loss == pytest.approx(0.043381, abs=1e-6)  # the paper's form: -0.956619


def test_equal_predictions_have_no_class_affinity_loss_at_all():
    view = View(torch.randn(2, 5, 4, 6, 8))
    assert ClassAffinity(**ONE_SCALE)(NOTHING, view, View(view.logits.clone())).item() == 0


def test_affinity_forgets_where_voxels_lie_and_in_which_order_classes_come():
    torch.manual_seed(0)
    each = torch.tensor([2.0, 1, 0, -1, -2]).reshape(1, 5, 1, 1, 1)  # some classes are rare
    student, teacher = (torch.randn(2, 5, 2, 3, 4) + each for _ in range(2))
    term = ClassAffinity(**ONE_SCALE)
    loss = term(NOTHING, View(student), View(teacher)).item()
    moved = student.flatten(2)[..., torch.randperm(24)].reshape(student.shape)
    assert term(NOTHING, View(moved), View(teacher)).item() == pytest.approx(loss, rel=1e-4)
    classes = torch.tensor([3, 0, 4, 1, 2])
    swapped = term(NOTHING, View(student[:, classes]), View(teacher[:, classes])).item()
    assert swapped == pytest.approx(loss, rel=1e-4)
    assert term(NOTHING, View(student[:, classes]), View(teacher)).item() > 2 * loss


def test_the_length_of_a_column_does_not_matter():
    ours = torch.tensor([[[1.46, 0.34], [0.34, 0.86]]])
    theirs = torch.tensor([[[1.5, 0.5], [0.5, 0.5]]])
    assert column_gap(ours, theirs).item() == pytest.approx(0.043381, abs=1e-6)
    longer = ours * torch.tensor([7.0, 1.0])  # the first column
    assert column_gap(longer, theirs).item() == pytest.approx(0.043381, abs=1e-6)
    turned = ours * torch.tensor([[7.0], [1.0]])  # the first row: both columns turn
    assert column_gap(turned, theirs).item() > 0.05


def test_the_affinity_does_not_depend_on_how_many_voxels_say_it():
    few = probabilities([[0.9, 0.8, 0.1], [0.1, 0.2, 0.9]])
    many = View(few.logits.repeat_interleave(4, dim=2).repeat_interleave(2, dim=4))
    assert torch.allclose(affinity(many.logits), affinity(few.logits))
    assert ClassAffinity(**ONE_SCALE)(NOTHING, many, few).item() == pytest.approx(0, abs=1e-6)


def test_the_affinity_of_unrelated_predictions_is_small():
    torch.manual_seed(0)
    one, other = (View(torch.randn(1, 5, 32, 32, 32)) for _ in range(2))
    assert 0 < ClassAffinity(**ONE_SCALE)(NOTHING, one, other).item() < 0.01


def test_a_class_that_neither_side_predicts_costs_nothing():
    never = torch.tensor([0.0, 0.0, -1e4]).reshape(1, 3, 1, 1, 1)
    student = (torch.randn(1, 3, 2, 2, 2) + never).requires_grad_()
    loss = ClassAffinity(**ONE_SCALE)(NOTHING, View(student), View(student.detach().clone()))
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(student.grad).all()


def test_a_map_of_64_160_160_voxels_stays_finite_in_half_precision():
    value = torch.tensor([8.0, 0.0], dtype=torch.float16).reshape(1, 2, 1, 1, 1)
    logits = value.expand(1, 2, 64, 160, 160)  # 1,638,400 voxels, each sure of class 0
    with torch.autocast("cpu", dtype=torch.float16):
        matrix = affinity(logits)
        loss = ClassAffinity(**ONE_SCALE)(NOTHING, View(logits), View(logits))
    sure = 1 / (1 + math.exp(-8))
    assert matrix.dtype == torch.float32 and torch.isfinite(matrix).all()
    assert matrix[0, 0, 0].item() == pytest.approx(sure**2, rel=1e-4)
    assert loss.item() == 0
    assert 64 * 160 * 160 * sure**2 > torch.finfo(torch.float16).max


def test_affinity_takes_every_sample_of_the_batch():
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 4, 2, 2, 2), torch.randn(3, 4, 2, 2, 2)
    term = ClassAffinity(**ONE_SCALE)
    whole = term(NOTHING, View(student), View(teacher)).item()
    each = [term(NOTHING, View(student[i : i + 1]), View(teacher[i : i + 1])) for i in range(3)]
    assert whole == pytest.approx(sum(each).item() / 3, rel=1e-5)


# Multi-scale distillation


def voxel(logits: list[float], *, norm: float) -> View:
    """One voxel, whose four features have the norm `norm`."""
    features = torch.full((1, 4, 1, 1, 1), norm / 2)
    return View(torch.tensor(logits).reshape(1, -1, 1, 1, 1), {"decoder/0": features})


def test_one_voxel_by_hand():
    term = MultiScale(**OUTPUT, tau=1.0)
    student = voxel([2.0, 0.0], norm=2.0)
    soft = 1 / (1 + math.exp(-1.0))  # of [2, 0] / 2 and of [4, 0] / 4
    assert soft == pytest.approx(0.731059, abs=1e-6)
    entropy = -soft * math.log(soft) - (1 - soft) * math.log(1 - soft)
    assert entropy == pytest.approx(0.582203, abs=1e-6)  # the cross-entropy of two that are equal
    same = term(NOTHING, student, voxel([4.0, 0.0], norm=4.0)).item()
    assert same == pytest.approx(0, abs=1e-6)

    sure = 1 / (1 + math.exp(-2.0))  # of [4, 0] / 2
    assert sure == pytest.approx(0.880797, abs=1e-6)
    cross_entropy = -sure * math.log(soft) - (1 - sure) * math.log(1 - soft)
    assert cross_entropy == pytest.approx(0.432465, abs=1e-6)
    entropy = -sure * math.log(sure) - (1 - sure) * math.log(1 - sure)
    loss = term(NOTHING, student, voxel([4.0, 0.0], norm=2.0)).item()
    assert loss == pytest.approx(cross_entropy - entropy, abs=1e-6)
    assert loss == pytest.approx(0.067131, abs=1e-6)


def test_tau_sharpens_like_larger_logits():
    one = MultiScale(**OUTPUT, tau=2.0)(
        NOTHING, voxel([1.0, 0.0], norm=2.0), voxel([2.0, 0.0], norm=2.0)
    )
    assert one.item() == pytest.approx(0.067131, abs=1e-6)


def scales(seed: int, classes: int = 3) -> View:
    """A network's output, side heads and features, each scale half the size of the one above."""
    random = torch.Generator().manual_seed(seed)

    def maps(channels: int, i: int):
        return torch.randn(2, channels, 16 >> i, 16 >> i, 16 >> i, generator=random)

    taps = {f"logits/{i}": maps(classes, i) for i in (1, 2, 3)}
    return View(maps(classes, 0), taps | {f"decoder/{i}": maps(4 << i, i) for i in range(4)})


def test_one_factor_on_features_and_logits_of_a_network_changes_nothing():
    student, teacher = scales(1), scales(2)
    factors = {"0": 7.0, "1": 0.2, "2": 3.0, "3": 11.0}
    larger = View(
        student.logits * 7, {name: tap * factors[name[-1]] for name, tap in student.taps.items()}
    )
    term = MultiScale()
    loss = term(NOTHING, student, teacher).item()
    assert term(NOTHING, larger, teacher).item() == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("detached", [True, False])
def test_the_norm_is_a_way_round_for_the_gradient_only_if_asked(detached):
    student, teacher = scales(1), scales(2)
    for tap in student.taps.values():
        tap.requires_grad_()
    MultiScale(detach_norm=detached)(NOTHING, student, teacher).backward()
    reached = {name for name, tap in student.taps.items() if tap.grad is not None}
    heads = {"logits/1", "logits/2", "logits/3"}
    assert reached == (heads if detached else set(student.taps))


@pytest.mark.parametrize("term", [ClassAffinity, MultiScale])
def test_the_scales_are_weighted_as_in_the_paper(term):
    student, teacher = scales(1), scales(2)
    whole = term()(NOTHING, student, teacher).item()
    parts = [0.0] * 4
    for i in range(4):
        weights = tuple(float(i == r) for r in range(4))
        parts[i] = term(weights=weights)(NOTHING, student, teacher).item()
    assert min(parts) > 0 and len(set(parts)) == 4
    assert whole == pytest.approx(0.4 * parts[0] + 0.2 * sum(parts[1:]), rel=1e-5)


def test_a_coarser_teacher_is_interpolated_to_the_students_grid():
    student = scales(1)
    coarse = torch.zeros(2, 3, 4, 8, 8)
    coarse[:, 1] = 2.0  # the same everywhere, so that interpolation keeps it
    taps = {"logits/1": coarse, "decoder/1": torch.ones(2, 4, 4, 8, 8)}
    fine = {name: tap.repeat_interleave(2, dim=2) for name, tap in taps.items()}
    term = MultiScale(("logits/1", "decoder/0", "decoder/1"), (0.0, 1.0))
    losses = [
        term(
            NOTHING, student, View(student.logits, given | {"decoder/0": student.taps["decoder/0"]})
        )
        for given in (taps, fine)
    ]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)


def test_a_coarser_teacher_is_interpolated_linearly():
    term = MultiScale(("decoder/0",), (1.0,))

    def row(*values: float) -> View:
        logits = torch.tensor([values, [0.0] * len(values)])[None, :, None, None]
        return View(logits, {"decoder/0": torch.ones(1, 1, 1, 1, len(values))})

    coarse = term(NOTHING, row(1, 2, 3, 4), row(0, 4)).item()
    assert coarse == pytest.approx(term(NOTHING, row(1, 2, 3, 4), row(0, 1, 3, 4)).item())


def test_a_silent_voxel_keeps_finite_logits_and_gradients():
    student = View(torch.randn(1, 3, 2, 2, 2).requires_grad_(), {})
    silent = View(student.logits, {"decoder/0": torch.zeros(1, 4, 2, 2, 2, requires_grad=True)})
    teacher = View(torch.randn(1, 3, 2, 2, 2), {"decoder/0": torch.ones(1, 4, 2, 2, 2)})
    loss = MultiScale(**OUTPUT, detach_norm=False)(NOTHING, silent, teacher)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.logits.grad).all()
    assert torch.isfinite(silent.taps["decoder/0"].grad).all()


# What is refused


@pytest.mark.parametrize("term", [ClassAffinity(), MultiScale()])
def test_other_classes_are_refused(term):
    with pytest.raises(ValueError, match="student has 3 classes at 'the output' and the teacher 4"):
        term(NOTHING, scales(1), scales(2, classes=4))


def test_features_of_another_scale_are_refused():
    student = scales(1)
    term = MultiScale(("decoder/1",), (1.0,))
    with pytest.raises(ValueError, match=r"'decoder/1' have \(8, 8, 8\) voxels .* \(16, 16, 16\)"):
        term(NOTHING, student, student)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ClassAffinity(weights=(1.0,)), "one at least more than 0"),
        (lambda: ClassAffinity(weights=(0.0,) * 4), "one at least more than 0"),
        (lambda: MultiScale(weights=(0.4, 0.2, 0.2, -0.2)), "one at least more than 0"),
        (lambda: MultiScale(taps=("logits/1", "decoder/0")), "1 side heads and 1 features"),
        (lambda: MultiScale(tau=0.0), "tau is 0.0; use a positive number"),
        (lambda: LabelLoss(weights=(1.0, 0.5)), "for the output and the taps"),
        (lambda: LabelLoss(("logits/1",), (0.0, 0.0)), "one at least more than 0"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


# Labels at the side heads


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ((), (8 / 15, 4 / 15, 2 / 15, 1 / 15)),  # .533, .267, .133, .067
        ((4.0, 2.0, 1.0, 0.0), (4 / 7, 2 / 7, 1 / 7, 0.0)),  # .571, .286, .143, 0
    ],
)
def test_side_heads_count_as_in_nnu_net(weights, shares):
    view = scales(1)
    label = torch.randint(3, (2, 16, 16, 16), generator=torch.Generator().manual_seed(0))
    given = Batch(torch.zeros(2, 1, 16, 16, 16), label)
    taps = ("logits/1", "logits/2", "logits/3")
    whole = LabelLoss(taps, weights)(given, view).item()
    outputs = [view.logits, *(view.taps[name] for name in taps)]
    every = [slice(2**i // 2, None, 2**i) for i in range(4)]  # the voxels nearest to the middles
    alone = [
        LabelLoss()(Batch(given.image, label[:, step, step, step]), View(output)).item()
        for step, output in zip(every, outputs, strict=True)
    ]
    assert whole == pytest.approx(sum(map(mul, shares, alone)), rel=1e-5)


# The networks

LIGHTWEIGHT = {
    "encoder": [10_624, 47_680, 189_568, 755_968, 266_752],
    "up": [2_144, 8_384, 33_152, 66_304],
    "decoder": [16_672, 66_112, 263_296, 1_050_880],
    "heads": [561, 1_105, 2_193, 4_369],
}
DENSE = {
    "encoder": [28_704, 166_272, 664_320, 2_655_744, 3_540_480],
    "up": [16_480, 65_728, 262_528, 525_056],
    "decoder": [83_136, 332_160, 1_327_872, 5_309_952],
    "heads": [561, 1_105, 2_193, 4_369],
}


def lcovnet(classes: int, **settings):
    with torch.device("meta"):
        return build_network(NetworkConfig("lcovnet", settings), 1, classes)


@pytest.mark.parametrize(("block", "sizes"), [("lightweight", LIGHTWEIGHT), ("dense", DENSE)])
def test_every_module_has_the_papers_parameters(block, sizes):
    net = lcovnet(17, block=block)
    for name, expected in sizes.items():
        assert [count_parameters(part) for part in net.get_submodule(name)] == expected, name
    assert count_parameters(net) == sum(map(sum, sizes.values()))


@pytest.mark.parametrize(
    ("settings", "classes", "parameters"),
    [
        ({}, 2, 2_778_504),
        ({}, 9, 2_781_892),
        ({}, 14, 2_784_312),
        ({}, 16, 2_785_280),
        ({}, 17, 2_785_764),
        ({"width": (16, 32, 64, 128, 256)}, 2, 815_560),
        ({"width": (16, 32, 64, 128, 256)}, 9, 817_268),
        ({"width": (16, 32, 64, 128, 256)}, 14, 818_488),
        ({"width": (16, 32, 64, 128, 256)}, 17, 819_220),
        ({"width": (16, 32, 64, 128, 128)}, 2, 698_568),
        ({"width": (16, 32, 64, 128, 128)}, 17, 702_228),
        ({"block": "dense"}, 2, 14_979_400),
        ({"block": "dense"}, 8, 14_982_304),
        ({"block": "dense"}, 17, 14_986_660),
    ],
)
def test_networks_have_the_papers_parameters(settings, classes, parameters):
    assert count_parameters(lcovnet(classes, **settings)) == parameters


def test_a_side_of_24_voxels_is_too_small():
    net = build_network(NetworkConfig("lcovnet", {"width": (2, 2, 2, 2, 2)}), 1, 2).eval()
    assert net.minimum == 32 and net.multiple == 16
    with torch.no_grad(), pytest.raises(RuntimeError):
        net(torch.zeros(1, 1, 32, 24, 32))


@pytest.mark.parametrize(
    ("overrides", "classes", "parameters"),
    [
        ([], 17, {"teacher": 14_986_660, "alone": 2_785_764, "student": 2_785_764}),
        (
            [
                f"stages.{stage}.trained.student.settings.width=[16,32,64,128,256]"
                for stage in ("alone", "student")
            ],
            2,
            {"teacher": 14_979_400, "alone": 815_560, "student": 815_560},
        ),
    ],
)
def test_the_recipe_has_the_papers_networks_and_weights(overrides, classes, parameters):
    recipe = load_recipe("lcov-net", overrides)
    rehearse(recipe, 1, label_table({value: f"organ {value}" for value in range(1, classes)}))
    for stage in recipe.stages:
        (config,) = stage.trained.values()
        with torch.device("meta"):
            net = build_network(config, 1, classes)
        assert count_parameters(net) == parameters[stage.name]
    last = recipe.stages[-1]
    assert last.start == {"student": "alone/student"}
    assert {link.term: link.weight for link in last.links.values()} == {
        "label": 0.8,
        "multi_scale": 0.2,
        "class_affinity": 0.1,
    }
    rates = [(stage.optim or recipe.optim).learning_rate for stage in recipe.stages]
    assert rates == [1e-2, 1e-2, 3e-3]
