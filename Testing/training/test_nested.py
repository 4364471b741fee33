"""Regions inside one another: class scores, their loss by hand, and the way into a package."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from DistillSegLib.distill.distillation import Distillation, Link
from DistillSegLib.distill.dsm import RegionDice, region_masks
from DistillSegLib.distill.views import Batch, Tapped, View
from DistillSegLib.errors import RecipeError
from DistillSegLib.export import packaging
from DistillSegLib.export.onnx import export_onnx
from DistillSegLib.inference import Segmenter
from DistillSegLib.metrics import dice
from DistillSegLib.networks import NetworkConfig, build_network, smallest_size
from DistillSegLib.networks.nested import Nested, class_scores
from DistillSegLib.networks.unet import UNet
from DistillSegLib.training.recipe import load_recipe
from DistillSegLib.training.stages import run
from Testing.datasets import write_decathlon
from Testing.training.small_recipes import EVERYWHERE, SMALL

BRATS = (2, 1, 3)  # oedema outermost, then necrosis, then enhancing tumour
NARROW = {"network": "depth_shift_unet", "settings": {"width": [8, 8]}}


def voxels(*rows: tuple[float, ...]) -> torch.Tensor:
    """One row of R numbers for each voxel -> (1, R, 1, 1, voxels)."""
    return torch.tensor(rows, dtype=torch.float32).T[None, :, None, None]


# Class scores


def test_the_class_is_that_of_the_innermost_region_without_a_gap():
    signs = list(itertools.product((-1, 1), repeat=3))
    regions = voxels(*[(2.0 * a, 0.5 * b, 3.0 * c) for a, b, c in signs])
    expected = []
    for a, b, c in signs:  # whole tumour, core, enhancing
        expected.append(0 if a < 0 else 2 if b < 0 else 1 if c < 0 else 3)
    assert class_scores(regions, BRATS).argmax(1).flatten().tolist() == expected


def test_scores_are_the_running_sum_of_the_running_minimum():
    scores = class_scores(voxels((2.0, 3.0, -1.0)), BRATS)
    assert scores.flatten().tolist() == [0, 4, 2, 3]  # 2; 2 + 2; 2 + 2 - 1, at classes 2, 1, 3


def test_many_random_regions_give_the_count_of_leading_ones():
    regions = torch.randn(2, 5, 3, 4, 5)
    leading = (regions > 0).cumprod(dim=1).sum(dim=1)
    assert torch.equal(class_scores(regions, (1, 2, 3, 4, 5)).argmax(1), leading)


@pytest.mark.parametrize("order", [(1, 1), (0, 1), (2, 3)])
def test_an_order_that_is_none_is_refused(order):
    with pytest.raises(RecipeError, match=r"each structure once.*the numbers 1 to 2"):
        build_network(NetworkConfig(**NARROW, nested=order), 1, 3)
    with pytest.raises(ValueError, match=r"^order is .* each structure once"):
        RegionDice(order=order)


def test_an_order_of_another_count_is_refused():
    with pytest.raises(RecipeError, match="the data set has 3 structures"):
        build_network(NetworkConfig(**NARROW, nested=(1, 2)), 1, 4)


def test_by_value_takes_the_classes_as_they_are_numbered():
    net = build_network(NetworkConfig(**NARROW, nested="by value"), 4, 4)
    assert net.order == (1, 2, 3)
    assert net.multiple == net.net.multiple == (1, 2, 2)
    assert net.net.head.out_channels == 3  # as BraTS's, with a sigmoid each
    assert net(torch.randn(2, 4, 3, 8, 6)).shape == (2, 4, 3, 8, 6)


def test_the_smallest_size_is_that_of_the_network_within():
    config = NetworkConfig("residual_unet", {"width": [4, 4]}, nested="by value")
    net = build_network(config, 1, 3)
    assert (net.multiple, smallest_size(net)) == (2, 4)


def test_taps_are_the_network_s_own_and_its_regions():
    net = Nested(UNet(1, 2, (4, 4, 4), deep_supervision=True), (2, 1))
    image = torch.randn(1, 1, 8, 8, 8)
    taps = ("regions/0", "regions/1", "encoder/2")
    seen = Tapped(net, taps)(Batch(image, torch.zeros(1, 8, 8, 8, dtype=torch.int64)))
    assert [tuple(seen.taps[name].shape[1:3]) for name in taps] == [(2, 8), (2, 4), (4, 2)]
    torch.testing.assert_close(class_scores(seen.taps["regions/0"], (2, 1)), seen.logits)
    assert not any(name.startswith("logits/") for name in net.taps)


def test_nested_regions_export(tmp_path):
    class Pointwise(nn.Conv3d):
        multiple, taps = 1, {}

    net = Nested(Pointwise(2, 3, 1), BRATS)
    parity = export_onnx(net, (4, 6, 8), tmp_path / "model.onnx", channels=2, multiple=1)
    assert parity.max_difference < 1e-5


# The loss


def given(label: torch.Tensor) -> Batch:
    return Batch(torch.zeros(len(label), 1, *label.shape[1:]), label)


def view(regions: torch.Tensor, order=BRATS) -> View:
    return View(class_scores(regions, order), {"regions/0": regions})


def test_a_region_holds_its_class_and_all_further_in():
    label = torch.tensor([0, 1, 2, 3]).reshape(1, 1, 1, 4)
    whole, core, enhancing = region_masks(label, BRATS)[0, :, 0, 0].tolist()
    assert whole == [False, True, True, True]
    assert core == [False, True, False, True]
    assert enhancing == [False, False, False, True]


def test_region_dice_by_hand():
    label = torch.tensor([0, 1, 2, 3]).reshape(1, 1, 1, 4)
    undecided = torch.zeros(1, 3, 1, 1, 4)  # p = 1/2: 2 * n/2 / (4/4 + n) for n = 3, 2, 1 voxels
    loss = RegionDice(order=BRATS)(given(label), view(undecided))
    assert loss.item() == pytest.approx(1 - (3 / 4 + 2 / 3 + 1 / 2) / 3, abs=1e-6)


def test_the_sums_run_over_the_batch_before_the_ratio_is_taken():
    label = torch.tensor([1, 1, 0, 0]).reshape(
        2, 1, 1, 2
    )  # all of the first volume, none of the other
    regions = torch.zeros(2, 1, 1, 1, 2)
    loss = RegionDice()(given(label), view(regions, (1,)))
    assert loss.item() == pytest.approx(1 - 2 * 1 / (4 / 4 + 2), abs=1e-6)


def test_a_perfect_answer_costs_nothing_and_probabilities_not_logits_count():
    label = torch.randint(4, (2, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    sure = torch.where(region_masks(label, BRATS), 30.0, -30.0)
    assert RegionDice(order=BRATS)(given(label), view(sure)).item() == pytest.approx(0, abs=1e-6)
    surer = RegionDice(order=BRATS)(given(label), view(2 * sure))
    assert surer.item() == pytest.approx(0, abs=1e-6)  # of raw logits, 1 - 4 * 60 / (3600 + …)


def test_an_absent_region_costs_one_and_sends_no_gradient():
    regions = torch.zeros(1, 1, 2, 2, 2, requires_grad=True)
    loss = RegionDice()(given(torch.zeros(1, 2, 2, 2, dtype=torch.int64)), view(regions, (1,)))
    assert loss.item() == 1
    assert not torch.autograd.grad(loss, regions)[0].any()


def test_nothing_where_nothing_is_gives_no_nan():
    regions = torch.full((1, 1, 2, 2, 2), -200.0)  # the sigmoid is 0 exactly
    loss = RegionDice()(given(torch.zeros(1, 2, 2, 2, dtype=torch.int64)), view(regions, (1,)))
    assert loss.item() == 1


def test_heads_at_several_scales_count_alike_each_on_its_own_grid():
    label = torch.tensor([1, 1, 0, 0]).reshape(1, 1, 1, 4)
    fine, coarse = torch.zeros(1, 1, 1, 1, 4), torch.full((1, 1, 1, 1, 2), 30.0)
    seen = View(class_scores(fine, (1,)), {"regions/0": fine, "regions/1": coarse})
    loss = RegionDice(taps=("regions/0", "regions/1"))(given(label), seen)
    by_hand = (1 - 2 * 1 / (4 / 4 + 2)) + (1 - 2 * 1 / (2 + 1))  # of the coarse voxels, one is 1
    assert loss.item() == pytest.approx(by_hand / 2, abs=1e-6)


def test_a_training_that_diverges_says_so_itself():
    """In the midst of it the order is known; the loop answers what is not finite."""
    regions = torch.full((1, 1, 2, 2, 2), float("nan"))
    batch = given(torch.ones(1, 2, 2, 2, dtype=torch.int64))._replace(progress=0.5)
    assert RegionDice()(batch, view(regions, (1,))).isnan()


def test_region_dice_computes_in_32_bits():
    label = torch.ones(1, 2, 2, 2, dtype=torch.int64)
    regions = torch.randn(1, 1, 2, 2, 2).bfloat16()
    assert RegionDice()(given(label), view(regions, (1,))).dtype == torch.float32


def rehearsed(config: NetworkConfig, term: RegionDice) -> str:
    torch.manual_seed(0)
    net = Tapped(build_network(config, 1, 3), term.taps)
    label = torch.randint(3, (2, 3, 4, 4))
    batch = Batch(torch.randn(2, 1, 3, 4, 4), label)
    return Distillation({"student": net}, {}, {"regions": Link(term)}).rehearse(batch)


def test_another_order_than_the_network_s_is_refused():
    config = NetworkConfig(**NARROW, nested=(2, 1))
    assert "RegionDice" in rehearsed(config, RegionDice(order=(2, 1)))
    with pytest.raises(RecipeError, match=r"in another order than \[1, 2\]; give the link"):
        rehearsed(config, RegionDice())
    with pytest.raises(RecipeError, match=r"'regions/0' has 2 regions and the network 3 classes"):
        rehearsed(config, RegionDice(order=(1, 3, 2)))


def test_a_network_without_regions_is_refused():
    with pytest.raises(ValueError, match="DepthShiftUNet has no tap 'regions/0'"):
        Tapped(build_network(NetworkConfig(**NARROW), 1, 3), RegionDice().taps)


# From a recipe to the clinic

CARD = """
id = "phantom-regions"
version = "1.0.0"
title = "Phantom, nested"
description = "A ball with a tail."
intended_use = "Tests."
known_failures = "All patients."
licence = "CC0-1.0"
attribution = "Made by code."
"""


def test_two_channels_and_nested_outputs_from_recipe_to_labels(tmp_path, monkeypatch):
    """Slices are few and odd in number: the depth is never padded."""
    monkeypatch.setattr(packaging, "measure_memory", lambda path, channels, multiple: 100.0)
    size = (11, 24, 22)
    data = write_decathlon(tmp_path / "data", cases=16, size=size, channels=("FLAIR", "T1"))
    recipe = load_recipe("distill-dsm", [*EVERYWHERE, *SMALL["distill-dsm"].overrides])
    run(recipe, {"": data}, tmp_path / "run")
    (tmp_path / "card.toml").write_text(CARD)
    out = packaging.build_package(
        tmp_path / "run",
        stage="student",
        card=tmp_path / "card.toml",
        out=tmp_path / "p.distillseg",
    )
    segmenter = Segmenter(out)
    manifest = segmenter.package.manifest
    assert manifest.window == size
    assert (manifest.multiple, manifest.minimum) == ((1, 2, 2), (1, 2, 2))
    assert not manifest.single_pass
    held_out = manifest.provenance["held_out_cases"][0]
    images = [data / f"imagesTr/{held_out}_{channel:04d}.nii.gz" for channel in (0, 1)]
    found = sitk.GetArrayFromImage(segmenter.segment(images).image)
    reference = sitk.GetArrayFromImage(sitk.ReadImage(str(data / f"labelsTr/{held_out}.nii.gz")))
    assert set(np.unique(found)) == {0, 3, 7}
    for value in (3, 7):
        assert dice(found == value, reference == value) > 0.7
