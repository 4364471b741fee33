"""The plan: what the data say, unless the recipe says otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from DistillSegLib.datasets import Dataset, read_dataset
from DistillSegLib.errors import DatasetError, RecipeError, ScopeError
from DistillSegLib.labels import label_table
from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.preprocessing import Intensity
from DistillSegLib.records import from_dict, to_dict
from DistillSegLib.scope import Measured, Wider, check_scope
from DistillSegLib.training import plan as planning
from DistillSegLib.training.plan import Fingerprint, Plan, activation_bytes, fingerprint, make_plan
from DistillSegLib.training.recipe import PlanConfig
from Testing.datasets import phantom, write_decathlon, write_image

GIB = 2**30


def network(name: str = "unet", width=(4, 8, 16), channels: int = 1) -> nn.Module:
    with torch.device("meta"):
        return build_network(NetworkConfig(name, {"width": width}), channels, 3)


def planned(
    spacings=((1.0, 1.0, 1.0),),
    voxels=((40, 40, 40),),
    *,
    channels=("MRI",),
    values=(0.0, 1.0),
    networks=None,
    **given,
) -> Plan:
    """A plan for images of some spacings and sizes, without any image."""
    count = max(len(spacings), len(voxels))
    spacings, voxels = ([*each] * (count // len(each)) for each in (spacings, voxels))
    measured = tuple(
        Measured(
            tuple(n * s for n, s in zip(size, spacing)), spacing, ((0.0, 1.0, 2.0),) * len(channels)
        )
        for size, spacing in zip(voxels, spacings, strict=True)
    )
    found = Fingerprint(measured, tuple(np.array(values) for _ in channels))
    dataset = Dataset("made", (), label_table({1: "one"}), channels, "", "", Path())
    return make_plan(
        dataset, found, PlanConfig(**given), networks or [network(channels=len(channels))]
    )


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """The free memory that plans see, whatever this machine has."""
    monkeypatch.setattr(planning, "free_memory_bytes", lambda: 64 * GIB)


# Intensities


def test_ct_takes_its_statistics_from_the_labelled_voxels_of_all_cases(tmp_path):
    dataset = read_dataset(write_decathlon(tmp_path, cases=3, channels=("CT",)))
    plan = make_plan(dataset, fingerprint(dataset.cases, "LPS"), PlanConfig(), [network()])
    cases = [phantom(number, (18, 20, 16)) for number in range(3)]
    values = np.concatenate([images[0][label > 0] for images, label in cases]).astype(float)
    low, high = np.percentile(values, (0.5, 99.5))
    kept = values.clip(low, high)
    intensity = plan.preprocessing.intensity[0]
    assert intensity.scheme == "fixed"
    assert intensity.clip == pytest.approx((low, high))
    assert (intensity.mean, intensity.std) == pytest.approx((kept.mean(), kept.std()))
    assert plan.modality == "CT"
    assert "CT has fixed units" in plan.reasons["intensity"]


def test_mr_takes_each_image_s_own():
    plan = planned()
    assert plan.preprocessing.intensity == (Intensity("image", (0.5, 99.5)),)
    assert plan.modality == "MR"
    assert "each image's own" in plan.reasons["intensity"]


def test_withheld_labels_do_not_decide_the_statistics_of_ct(tmp_path):
    dataset = read_dataset(write_decathlon(tmp_path, cases=3, channels=("CT",)))
    found = fingerprint(dataset.cases, "LPS", labelled=dataset.cases[1:2])
    (image,), label = phantom(1, (18, 20, 16))
    assert sorted(found.foreground[0]) == sorted(image[label > 0].astype(float))
    assert len(found.measured) == 3  # spacing and size are of all images


def test_every_channel_has_its_own_scheme(tmp_path):
    dataset = read_dataset(write_decathlon(tmp_path, cases=2, channels=("CT", "PET")))
    found = fingerprint(dataset.cases, "LPS")
    plan = make_plan(dataset, found, PlanConfig(), [network(channels=2)])
    assert [each.scheme for each in plan.preprocessing.intensity] == ["fixed", "image"]
    assert plan.modality == "CT, PET"
    assert len(plan.scope.intensity) == 2


def test_channels_of_one_modality_share_its_name():
    assert planned(channels=("T1", "FLAIR")).modality == "MR"


def test_images_without_any_label_cannot_be_planned(tmp_path):
    dataset = read_dataset(write_decathlon(tmp_path, cases=2))
    for case in dataset.cases:
        write_image(case.label, np.zeros((18, 20, 16), np.uint8), (1.0, 1.0, 1.0))
    with pytest.raises(DatasetError, match="None of the 2 training cases holds a labelled voxel"):
        fingerprint(dataset.cases, "LPS")


# Spacing


def test_the_spacing_is_the_median():
    spacings = [(1.0, 0.8, 0.8), (2.0, 0.9, 0.9), (1.5, 1.0, 0.7)]
    plan = planned(spacings)
    assert plan.preprocessing.spacing_mm == (1.5, 0.9, 0.8)
    assert plan.reasons["spacing_mm"] == "median of the training images"


def test_a_coarse_axis_follows_the_finer_images():
    spacings = [(float(z), 1.0, 1.0) for z in (2, 3, 5, 5, 5, 5, 5, 5, 6, 6, 6)]
    plan = planned(spacings)
    assert plan.preprocessing.spacing_mm == (3.0, 1.0, 1.0)  # the tenth percentile of eleven
    assert "coarse axis" in plan.reasons["spacing_mm"]


def test_the_coarse_axis_never_becomes_finer_than_the_others():
    spacings = [(0.5, 1.0, 1.0)] * 2 + [(5.0, 1.0, 1.0)] * 9
    assert planned(spacings).preprocessing.spacing_mm == (1.0, 1.0, 1.0)


# Window and batch


def test_the_window_is_the_median_size_in_the_networks_multiples():
    plan = planned(voxels=[(35, 50, 36), (33, 51, 40), (39, 47, 36)])
    assert plan.window == (36, 48, 36)  # 35, 50 and 36 in fours
    assert plan.multiple == 4
    assert "median size 35 x 50 x 36" in plan.reasons["window"]


def test_the_window_counts_voxels_after_resampling():
    assert (
        planned([(2.0, 1.0, 1.0)], [(20, 40, 40)], spacing_mm=(1.0, 1.0, 1.0)).window == (40,) * 3
    )


def test_a_large_window_is_shrunk_along_its_longest_axis():
    plan = planned(voxels=[(80, 512, 512)])
    assert plan.window[0] == 80
    assert np.prod(plan.window) <= planning.LARGEST_WINDOW
    assert not any(size % 4 for size in plan.window)
    assert "shrunk to fit" in plan.reasons["window"]


def test_the_window_suits_all_networks_of_all_stages():
    lcov = network("lcovnet", (2, 2, 2, 2, 2))  # in sixteens, at least 32
    plan = planned(voxels=[(20, 40, 70)], networks=[network(), lcov])
    assert plan.window == (32, 32, 64)
    assert plan.multiple == 16


def test_the_depth_of_slice_wise_networks_is_the_images():
    flat = build_network(NetworkConfig("unet", {"width": (4, 4, 8), "dims": 2}), 1, 3)
    plan = planned(voxels=[(7, 40, 70)], networks=[flat])
    assert plan.window == (7, 40, 72)
    assert plan.multiple == (1, 4, 4)
    assert planned(voxels=[(7, 40, 70)], networks=[flat, network()]).window == (8, 40, 72)
    with pytest.raises(RecipeError, match=r"multiples of \(1, 4, 4\), at least \(1, 4, 4\)"):
        planned(window=(7, 10, 8), networks=[flat])


def test_the_batch_is_bound_by_memory_by_data_and_by_eight(monkeypatch):
    assert planned(voxels=[(40, 40, 40)] * 1000).batch == 8
    assert planned(voxels=[(40, 40, 40)] * 100).batch == 5  # a twentieth of the data
    assert planned(voxels=[(40, 40, 40)] * 4).batch == 2  # statistics need two
    needed = activation_bytes(network(), 1, (40, 40, 40))
    monkeypatch.setattr(planning, "free_memory_bytes", lambda: 2 * 3 * needed)
    assert planned(voxels=[(40, 40, 40)] * 1000).batch == 3  # in half of what is free


def test_too_little_memory_for_one_patch_is_said_unless_the_batch_is_given(monkeypatch):
    monkeypatch.setattr(planning, "free_memory_bytes", lambda: 1)
    with pytest.raises(RecipeError, match=r"plan\.window or narrower networks"):
        planned()
    assert planned(batch=1).batch == 1


def test_memory_counts_every_layer_s_output_twice_in_32_bits():
    net = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU())
    assert activation_bytes(net, 1, (4, 4, 4)) == 2 * (2 * 64) * 2 * 4


def test_a_window_of_the_smallest_size_is_planned():
    """One voxel at the coarsest level: in training its norm needs two patches, as the batch has."""
    plan = planned(voxels=[(4, 4, 4)] * 3)
    assert (plan.window, plan.batch) == ((4, 4, 4), 2)


# Overrides


def test_what_the_recipe_gives_wins_and_the_reason_says_so():
    given = {
        "spacing_mm": (2.0, 2.0, 2.0),
        "orientation": "RAS",
        "intensity": (Intensity("fixed", (0.0, 9.0)),),
        "window": (8, 12, 16),
        "batch": 3,
    }
    plan = planned(**given)
    assert plan.preprocessing.spacing_mm == given["spacing_mm"]
    assert plan.preprocessing.orientation == "RAS"
    assert plan.preprocessing.intensity == given["intensity"]
    assert (plan.window, plan.batch) == ((8, 12, 16), 3)
    assert set(plan.reasons.values()) == {"given in the recipe"}
    assert str(plan).count("given in the recipe") == 5


@pytest.mark.parametrize("window", [(8, 8, 10), (8, 8, 2)])
def test_a_window_that_the_networks_cannot_halve_is_refused(window):
    with pytest.raises(RecipeError, match="need multiples of 4, at least 4"):
        planned(window=window)


def test_intensities_must_be_given_for_every_channel():
    with pytest.raises(RecipeError, match=r"has 1 entries for 2 channels \(T1, T2\)"):
        planned(channels=("T1", "T2"), intensity=(Intensity("image", (0.0, 100.0)),))


# What is saved


def test_the_scope_is_the_range_of_the_training_images():
    plan = planned(
        [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)], [(10, 20, 30), (10, 20, 30)], body_part="liver"
    )
    assert plan.scope.size_mm == ((10.0, 20.0), (20.0, 20.0), (30.0, 30.0))
    assert plan.scope.body_part == "liver"


def test_a_scope_may_be_wider_than_the_training_images_but_not_narrower():
    meant = Wider(size_mm=((5, 50), (21, 22), (10, 12)), contrast=(0.5, 4000.0))
    images = [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)], [(10, 20, 30), (10, 20, 30)]
    narrow, wide = planned(*images).scope, planned(*images, scope=meant).scope
    assert wide.size_mm == ((5, 50), (20.0, 22), (10, 30.0))
    assert wide.spacing_mm == narrow.spacing_mm
    assert wide.intensity[0].contrast == (0.5, 4000.0)
    assert wide.intensity[0].balance == narrow.intensity[0].balance
    image = Measured((50.0, 20.0, 30.0), (1.0, 1.0, 1.0), ((0.0, 1.0, 2.0),))
    check_scope(wide, image, title="wide")
    with pytest.raises(ScopeError, match="but 'narrow' was trained on"):
        check_scope(narrow, image, title="narrow")


def test_a_plan_survives_the_way_through_json():
    plan = planned()
    assert from_dict(Plan, to_dict(plan)) == plan
