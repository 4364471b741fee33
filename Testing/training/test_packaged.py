"""A model package as a teacher: its network in torch again, and a student that learns from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

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
from DistillSegLib.networks import NetworkConfig, build_network, count_parameters
from DistillSegLib.package import load_package, read_package, write_package
from DistillSegLib.places import resources
from DistillSegLib.records import from_dict
from DistillSegLib.training.assembly import rehearse
from DistillSegLib.training.packaged import fill_folded
from DistillSegLib.training.recipe import Recipe, load_recipe
from DistillSegLib.training.stages import run
from DistillSegLib.training.teachers import TeacherConfig, build_teacher
from DistillSegLib.training.together import check_guides
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


def test_there_are_bundled_models():
    assert len(MODELS) >= 7, "the next test would be one of nothing"


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
        ("hippocampus-tiny", 1, {1: "Liver"}, {}, r"not 'Liver' .*; say by classes = \[0"),
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


def repacked(path: Path, model: bytes | None = None, **changes) -> Path:
    """The tiny model's package with another manifest, or with another model."""
    variant = TINY.variant()
    model = TINY.model_bytes(variant) if model is None else model
    window, logits = TINY.check_window(variant)
    variants = (replace(variant, size_bytes=len(model)),)
    return write_package(
        path,
        replace(TINY.manifest, variants=variants, **changes),
        card=TINY.card,
        models={variant.file: model},
        window=window,
        logits={variant.name: logits},
    )


def trained(network: str, **settings) -> dict:
    """A stage of a recipe."""
    return {"trained": {"student": {"network": network, "settings": settings}}}


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ([], "cannot be rebuilt in torch"),
        (7, "cannot be rebuilt in torch"),
        ("student", "cannot be rebuilt in torch"),
        ([{"trained": ["student"]}], "cannot be rebuilt in torch"),
        ([trained("unet")], "cannot be rebuilt in torch"),
        ([trained("unet", width=[10**5, 10**5])], "cannot be rebuilt in torch"),
        ([trained("vnet")], "does not know: No network 'vnet'"),
        (
            [{"trained": {"student": {"network": "unet", "domains": ["ct", "mr"]}}}],
            "knows no domain",
        ),
        ([{"trained": {"student": {"net": "unet"}}}], "does not know: .*'net'"),
    ],
)
def test_a_package_of_an_unknown_network_is_refused_in_words(tmp_path, stages, sentence):
    path = repacked(tmp_path / "x.distillseg", recipe={"stages": stages})
    with pytest.raises(RecipeError, match=sentence):
        build_teacher(TeacherConfig(package=str(path)), 1, LABELS)


def test_the_right_network_is_found_among_wrong_ones(tmp_path):
    """Of as many weights, but for other sizes or without logits at a stride."""
    right = TINY.manifest.recipe["stages"][-1]
    stages = [right, trained("unet", width=[4, 8]), trained("lcovnet")]
    path = repacked(tmp_path / "x.distillseg", recipe={"stages": stages})
    assert "encoder/1" in build_teacher(TeacherConfig(package=str(path)), 1, LABELS).taps


def test_a_model_that_is_none_is_refused_in_words(tmp_path):
    path = repacked(tmp_path / "x.distillseg", model=b"no ONNX at all")
    with pytest.raises(RecipeError, match="holds a model that cannot be read"):
        build_teacher(TeacherConfig(package=str(path)), 1, LABELS)


def test_weights_in_other_files_are_not_read(tmp_path, monkeypatch):
    variant = TINY.variant()
    model = onnx.load_model_from_string(TINY.model_bytes(variant))
    first = model.graph.initializer[0]
    (tmp_path / "secret.bin").write_bytes(first.raw_data)
    first.ClearField("raw_data")
    first.data_location = onnx.TensorProto.EXTERNAL
    first.external_data.add(key="location", value="secret.bin")
    monkeypatch.chdir(tmp_path)
    path = repacked(tmp_path / "x.distillseg", model=model.SerializeToString())
    with pytest.raises(RecipeError, match="cannot be rebuilt in torch"):
        build_teacher(TeacherConfig(package=str(path)), 1, LABELS)


def test_side_heads_are_no_taps(tmp_path):
    """An export leaves them out; a link that wants one is refused under the package's name."""
    config = CONFIGS["norm after a convolution, side heads"]
    torch.manual_seed(0)
    net = varied(build_network(config, 1, 3))
    export_onnx(net, SIZE, tmp_path / "net.onnx", multiple=net.multiple)
    model = (tmp_path / "net.onnx").read_bytes()
    variant = replace(
        TINY.variant(), stride=1, parameters=count_parameters(net), size_bytes=len(model)
    )
    plain = {"network": config.network, "settings": dict(config.settings)}
    recipe = {"stages": [{"trained": {"teacher": plain}}]}
    manifest = replace(TINY.manifest, variants=(variant,), recipe=recipe, window=SIZE)
    window = torch.randn(1, 1, *manifest.check_shape)
    write_package(
        tmp_path / "x.distillseg",
        manifest,
        card=TINY.card,
        models={variant.file: model},
        window=window.numpy(),
        logits={variant.name: said(net, window)["logits"].numpy()},
    )
    guide = build_teacher(TeacherConfig(package=str(tmp_path / "x.distillseg")), 1, LABELS)
    assert "logits/1" in net.taps
    assert set(guide.taps) == {tap for tap in net.taps if not tap.startswith("logits/")}
    with pytest.raises(ValueError, match=r"package 'hippocampus-tiny-1.0.0' has no tap 'logits/1'"):
        Tapped(guide, ["logits/1"])


def test_a_package_does_not_teach_several_domains():
    frozen = "stages.student.frozen.teacher={package='sarcoma-ct'}"
    links = "stages.student.links.maps={term='prediction_maps'}"
    recipe = load_recipe("ct-mr", [frozen, links])
    with pytest.raises(
        RecipeError, match=r"'sarcoma-ct' was trained on images of one kind, the re"
    ):
        check_guides(recipe, ("ct", "mr"))


def test_a_package_named_as_a_stage_is_hinted_at():
    recipe = load_recipe("distil", ["stages.student.frozen.teacher=hippocampus-tiny"])
    with pytest.raises(RecipeError, match=r"such as \{ package = 'hippocampus-tiny' \}"):
        rehearse(recipe, 1, LABELS)


def test_a_plan_too_small_for_a_package_is_refused(tmp_path):
    path = repacked(tmp_path / "x.distillseg", minimum=(8, 24, 8))
    recipe = from_package(str(path), window=[16, 16, 16])
    data = write_decathlon(tmp_path / "data")
    with pytest.raises(RecipeError, match="24") as found:
        run(recipe, {"": data}, tmp_path / "run")
    assert not (tmp_path / "run" / "cache").exists(), found.value


def test_what_a_package_has_seen_of_the_held_out_cases_is_said(tmp_path):
    provenance = dict(TINY.manifest.provenance)
    provenance["training_cases"] = [f"case_{number:02d}" for number in range(8)]
    path = repacked(tmp_path / "x.distillseg", provenance=provenance)
    events = []
    data = write_decathlon(tmp_path / "data")
    run(from_package(str(path)), {"": data}, tmp_path / "run", on_event=events.append)
    (text,) = (event.text for event in events if event.kind == "rehearsal")
    assert "was trained on 2 of the 2 held-out cases (the first is 'case_0" in text


def from_package(name: str, **plan) -> Recipe:
    """A small student, taught for one epoch by a package of two structures."""
    stage = {
        "name": "student",
        "epochs": 1,
        "trained": {"student": {"network": "fast_unet", "settings": {"width": [8, 8]}}},
        "frozen": {"teacher": {"package": name, "classes": [0, 1, 2]}},
        "links": {"label": {"term": "label"}, "maps": {"term": "prediction_maps"}},
    }
    made = {"name": "from-package", "precision": "32-true", "workers": 0, "accelerator": "cpu"}
    plan = {"window": [16, 16, 16], "batch": 2} | plan
    return from_dict(Recipe, made | {"plan": plan, "stages": [stage]})


def test_a_student_learns_from_a_package_and_sees_the_images_that_it_saw(tmp_path):
    recipe = from_package("hippocampus-tiny")
    networks = run(recipe, {"": write_decathlon(tmp_path / "data")}, tmp_path / "run")
    assert networks["student/student"].is_file()
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    reason = "as hippocampus-tiny-1.0.0 was trained, which teaches"
    assert plan["reasons"]["spacing_mm"] == reason
    assert plan["preprocessing"]["spacing_mm"] == [1.0, 1.0, 1.0]
    assert plan["multiple"] == 8, "the teacher halves three times, the student twice"
