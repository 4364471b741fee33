"""A model package as a teacher: its network in torch again, and a student that learns from it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from DistillSegLib.distill.views import Batch, Tapped
from DistillSegLib.errors import RecipeError
from DistillSegLib.export.onnx import export_onnx
from DistillSegLib.labels import label_table
from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.package import load_package, read_package, write_package
from DistillSegLib.places import resources
from DistillSegLib.records import from_dict
from DistillSegLib.training.packaged import fill_folded
from DistillSegLib.training.recipe import Recipe
from DistillSegLib.training.stages import run
from DistillSegLib.training.teachers import TeacherConfig, build_teacher
from Testing.datasets import write_decathlon

MODELS = sorted((resources() / "Models").glob("*.distillseg"))
TINY = load_package("hippocampus-tiny")
LABELS = label_table({1: "Hippocampus, anterior", 2: "Hippocampus, posterior"})
SIZE = (16, 32, 32)
CONFIGS = {
    "norm after a convolution, side heads": NetworkConfig(
        "unet", {"width": (4, 8, 8), "deep_supervision": True}
    ),
    "norm after a convolution with a bias": NetworkConfig(
        "depth_shift_unet", {"width": (4, 8), "shift": "none"}
    ),
    "regions that nest": NetworkConfig("unet", {"width": (4, 8)}, nested=(2, 1)),
}


def varied(net: nn.Module) -> nn.Module:
    """With norms that do something, as after training."""
    for module in net.modules():
        if isinstance(getattr(module, "running_mean", None), torch.Tensor):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.uniform_(module.bias, -1.0, 1.0)
    return net.eval()


def said(net: nn.Module, image: torch.Tensor, taps=()) -> dict[str, torch.Tensor]:
    """Logits and features."""
    with torch.inference_mode():
        view = Tapped(net, list(taps)).eval()(Batch(image, torch.zeros(len(image), *SIZE)))
    return {"logits": view.logits, **view.taps}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_an_export_folded_computes_the_same_features_again(tmp_path, config):
    torch.manual_seed(0)
    net, again = (varied(build_network(config, 1, 3)) for _ in range(2))
    export_onnx(net, SIZE, tmp_path / "net.onnx", multiple=net.multiple)
    graph = onnx.load(str(tmp_path / "net.onnx")).graph
    held = {each.name: torch.tensor(numpy_helper.to_array(each)) for each in graph.initializer}
    image = torch.randn(1, 1, *SIZE)
    absent = fill_folded(again, held, image)
    assert all(name.startswith("heads.1") for name in absent)
    taps = [tap for tap in net.taps if not tap.startswith("logits/")]
    assert taps
    for name, expected in said(net, image, taps).items():
        found = said(again, image, taps)[name]
        assert torch.allclose(found, expected, atol=1e-4), name
        assert expected.std() > 1e-2, name


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_bundled_model_can_teach(path):
    manifest = read_package(path).manifest
    config = TeacherConfig(package=str(path))
    guide = build_teacher(config, 1, manifest.labels, manifest.preprocessing)
    window, expected = read_package(path).check_window(manifest.variants[0])
    stride = manifest.variants[0].stride
    with torch.inference_mode():
        image = torch.tensor(window)
        found = guide.net.coarse(image) if stride > 1 else guide(image)
    assert np.allclose(found.numpy(), expected, atol=1e-4)
    assert "encoder/1" in guide.taps


def test_its_structures_are_ours_by_name():
    turned = label_table({5: "hippocampus, posterior", 9: "Hippocampus, anterior"})
    images = TINY.manifest.preprocessing
    ours = build_teacher(TeacherConfig(package="hippocampus-tiny"), 1, LABELS, images)
    theirs = build_teacher(TeacherConfig(package="hippocampus-tiny"), 1, turned, images)
    image = torch.randn(1, 1, *SIZE)
    assert torch.equal(said(theirs, image)["logits"], said(ours, image)["logits"][:, [0, 2, 1]])


@pytest.mark.parametrize(
    ("name", "channels", "labels", "plan", "sentence"),
    [
        ("hippocampus-tinny", 1, LABELS, {}, "did you mean 'hippocampus-tiny'"),
        ("hippocampus-tiny", 2, LABELS, {}, r"takes 1 channels \(MRI\), the data set has 2"),
        ("hippocampus-tiny", 1, {1: "Liver"}, {}, r"not 'Liver'; say by classes = \[0"),
        (
            "hippocampus-tiny",
            1,
            LABELS,
            {"spacing_mm": (2.0, 1.0, 1.0)},
            r"was trained with the spacing_mm \[1.0, 1.0, 1.0\], the plan has \[2.0",
        ),
    ],
)
def test_a_package_that_does_not_fit_is_refused_in_words(name, channels, labels, plan, sentence):
    labels = label_table(labels) if isinstance(labels, dict) else labels
    images = replace(TINY.manifest.preprocessing, **plan)
    with pytest.raises(RecipeError, match=sentence):
        build_teacher(TeacherConfig(package=name), channels, labels, images)


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ([], "cannot be rebuilt in torch"),
        ([{"trained": {"student": {"network": "unet", "settings": {}}}}], "cannot be rebuilt"),
        ([{"trained": {"student": {"network": "vnet", "settings": {}}}}], "No network 'vnet'"),
    ],
)
def test_a_package_of_an_unknown_network_is_refused_in_words(tmp_path, stages, sentence):
    path, variant = tmp_path / "x.distillseg", TINY.variant()
    window, logits = TINY.check_window(variant)
    write_package(
        path,
        replace(TINY.manifest, recipe={"stages": stages}),
        card=TINY.card,
        models={variant.file: TINY.model_bytes(variant)},
        window=window,
        logits={variant.name: logits},
    )
    with pytest.raises(RecipeError, match=sentence):
        build_teacher(TeacherConfig(package=str(path)), 1, LABELS)


def test_a_student_learns_from_a_package_and_sees_the_images_that_it_saw(tmp_path):
    student = {"network": "fast_unet", "settings": {"width": [8, 8]}}
    links = {"label": {"term": "label"}, "maps": {"term": "prediction_maps"}}
    stage = {
        "name": "student",
        "epochs": 1,
        "trained": {"student": student},
        "frozen": {"teacher": {"package": "hippocampus-tiny", "classes": [0, 1, 2]}},
        "links": links,
    }
    plan = {"window": [16, 16, 16], "batch": 2}
    made = {"name": "from-package", "precision": "32-true", "workers": 0, "plan": plan}
    recipe = from_dict(Recipe, made | {"stages": [stage], "accelerator": "cpu"})
    networks = run(recipe, {"": write_decathlon(tmp_path / "data")}, tmp_path / "run")
    assert networks["student/student"].is_file()
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["reasons"]["spacing_mm"] == "as the package that teaches was trained"
    assert plan["preprocessing"]["spacing_mm"] == [1.0, 1.0, 1.0]
    assert plan["multiple"] == 8, "the teacher halves three times, the student twice"
