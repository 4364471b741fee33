"""Teachers from elsewhere: MONAI bundles; what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.networks.nets import BasicUNet, SegResNet
from torch import nn

from DistillSegLib.distill.views import Batch, Tapped
from DistillSegLib.errors import RecipeError
from DistillSegLib.labels import label_table
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.training.bundle import turned
from DistillSegLib.training.foreign import Foreign
from DistillSegLib.training.stages import run
from DistillSegLib.training.teachers import TeacherConfig, build_teacher
from Testing.datasets import write_decathlon
from Testing.training.teacher_cases import LABELS, SIZE, logits, recipe


def write_bundle(folder: Path, net: dict, steps: list, **metadata) -> nn.Module:
    """A bundle as MONAI lays them out; returns its network."""
    config = {
        "bundle_root": ".",
        "spacing": [1.0, 1.0, 1.0],
        "network_def": net,
        "network": "$@network_def.to('cuda')",
        "preprocessing": {"_target_": "Compose", "transforms": steps},
    }
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    settings = {key: value for key, value in net.items() if key != "_target_"}
    torch.manual_seed(1)
    made = {"SegResNet": SegResNet, "BasicUNet": BasicUNet}[net["_target_"]](**settings)
    torch.save(made.state_dict(), folder / "models" / "model.pt")
    return made


NET = {"_target_": "SegResNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3,
       "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}  # fmt: skip
STEPS = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": "image", "pixdim": "@spacing", "mode": "bilinear"},
    {"_target_": "NormalizeIntensityd", "keys": "image"},
]
FORMAT = {
    "inputs": {"image": {"num_channels": 1}},
    "outputs": {"pred": {"channel_def": {"0": "background", "1": "tail", "2": "ball"}}},
}
PLAN = Preprocessing((1.0, 1.0, 1.0), (Intensity("image", (0.0, 100.0)),), "LPS")


@pytest.fixture
def bundle(tmp_path):
    net = write_bundle(tmp_path / "bundle", NET, STEPS, network_data_format=FORMAT)
    return tmp_path / "bundle", net


def test_a_bundle_sees_its_own_axes_and_answers_along_ours(bundle):
    folder, net = bundle
    config = TeacherConfig(bundle=str(folder), taps={"encoder/1": "down_layers.1"})
    guide = build_teacher(config, 1, LABELS, PLAN)
    image = torch.randn(1, 1, *SIZE)  # z, y, x to S, P, L
    # MONAI: x, y, z to R, A, S
    seen = torch.flip(image.permute(0, 1, 4, 3, 2), [2, 3])
    expected = torch.flip(logits(net, seen), [2, 3]).permute(0, 1, 4, 3, 2)[:, [0, 2, 1]]
    assert torch.allclose(logits(guide, image), expected, atol=1e-5)
    view = Tapped(guide, ["encoder/1"]).eval()(Batch(image, torch.zeros(1, *SIZE)))
    assert view.taps["encoder/1"].shape == (1, 16, 4, 6, 8)
    assert guide.notes == ()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("LPS", ((2, 1, 0), [])),
        ("RAS", ((2, 1, 0), [0, 1])),
        ("SPL", ((0, 1, 2), [])),
        ("PIR", ((1, 0, 2), [1, 2])),
    ],
)
def test_axes_are_found_by_their_letters(code, expected):
    assert turned(code, PLAN) == expected


def test_axes_that_follow_the_slices_have_no_letters():
    with pytest.raises(RecipeError, match=r"give plan.orientation = 'RAS'"):
        turned("RAS", replace(PLAN, orientation="slices"))


def test_turning_there_and_back_changes_nothing():
    image = torch.randn(1, 3, *SIZE)
    axes, flipped = turned("PIR", PLAN)
    assert torch.equal(Foreign("It", nn.Identity(), axes=axes, flipped=flipped)(image), image)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"spacing_mm": (3.0, 1.0, 1.0)}, r"give plan.spacing_mm = \[1.0, 1.0, 1.0\]"),
        (
            {"intensity": (Intensity("image", (0.5, 99.5)),)},
            r"give plan.intensity = .*clip = \[0.0, 100.0\]",
        ),
        (
            {"intensity": (Intensity("fixed", (0.0, 200.0), 50.0, 20.0),)},
            r'give plan.intensity = \[\{ scheme = "image", clip = \[0.0, 100.0\] \}\]',
        ),
    ],
)
def test_a_plan_that_a_bundle_was_not_trained_on_is_refused(bundle, change, sentence):
    plan = Preprocessing(**({"spacing_mm": PLAN.spacing_mm, "intensity": PLAN.intensity} | change))
    with pytest.raises(RecipeError, match=sentence):
        build_teacher(TeacherConfig(bundle=str(bundle[0])), 1, LABELS, plan)


def test_a_range_of_ct_values_is_the_plan_s_fixed_scheme(tmp_path):
    steps = [{"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -100, "a_max": 300,
              "b_min": 0.0, "b_max": 1.0, "clip": True}]  # fmt: skip
    write_bundle(tmp_path / "ct", NET, steps, network_data_format=FORMAT)
    config = TeacherConfig(bundle=str(tmp_path / "ct"))
    same = Intensity("fixed", (-100.0, 300.0), -100.0, 400.0)  # (v + 100) / 400
    build_teacher(config, 1, LABELS, Preprocessing((1.0, 1.0, 1.0), (same,)))
    with pytest.raises(RecipeError, match=r"mean = -100, std = 400"):
        build_teacher(config, 1, LABELS, PLAN)


def test_what_a_bundle_does_not_say_is_said(tmp_path):
    steps = [{"_target_": "CropForegroundd", "keys": "image", "source_key": "image"}]
    write_bundle(tmp_path / "bundle", NET, steps)
    guide = build_teacher(TeacherConfig(bundle=str(tmp_path / "bundle")), 1, LABELS, PLAN)
    text = " ".join(guide.notes)
    for word in ("'CropForegroundd'", "spacing", "orientation", "intensities", "order of its cl"):
        assert word in text, word


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"net": NET | {"_target_": "SegResNett"}}, "its network cannot be built"),
        ({"weights": {"x": torch.zeros(1)}}, "weights of another network"),
        ({"channels": 2}, "takes 1 channels, the data set has 2"),
        ({"labels": {1: "Liver"}}, r"not 'Liver'; say by classes = \[0"),
        ({"folder": "absent"}, "no configs/inference.json"),
        ({"config": "{"}, "'inference.json' cannot be read"),
        ({"metadata": "{"}, "'metadata.json' cannot be read"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused_in_words(bundle, change, sentence):
    folder, _ = bundle
    file = folder / "configs" / "inference.json"
    if "net" in change:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"network_def": change["net"]}))
    if "weights" in change:
        torch.save(change["weights"], folder / "models" / "model.pt")
    if "config" in change:
        file.write_text(change["config"])
    if "metadata" in change:
        (folder / "configs" / "metadata.json").write_text(change["metadata"])
    labels = label_table(change["labels"]) if "labels" in change else LABELS
    with pytest.raises(RecipeError, match=sentence):
        build_teacher(
            TeacherConfig(bundle=str(folder / change.get("folder", "."))),
            change.get("channels", 1),
            labels,
            PLAN,
        )


@pytest.mark.parametrize(
    "described",
    [
        {"inputs": [], "outputs": []},
        {"outputs": {"pred": []}},
        {"outputs": {"pred": {"channel_def": ["background", "Ball", "Tail"]}}},
        {"outputs": {"pred": {"channel_def": {"first": "background"}}}},
    ],
)
def test_a_bundle_that_describes_itself_otherwise_leaves_the_classes_unchecked(bundle, described):
    folder, _ = bundle
    meta = {"network_data_format": described}
    (folder / "configs" / "metadata.json").write_text(json.dumps(meta))
    guide = build_teacher(TeacherConfig(bundle=str(folder)), 1, LABELS, PLAN)
    assert "the order of its classes could not be checked" in " ".join(guide.notes)


def test_a_student_learns_from_a_bundle(bundle, tmp_path):
    plan = {"spacing_mm": [1.0, 1.0, 1.0], "intensity": [{"scheme": "image", "clip": [0, 100]}]}
    made = recipe({"bundle": str(bundle[0])}, **plan)
    networks = run(made, {"": write_decathlon(tmp_path / "data")}, tmp_path / "run")
    assert networks["student/student"].is_file()
