"""The 8-bit variant: right numbers, and kept only where it changes no label that matters."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch

from DistillSegLib import Segmenter
from DistillSegLib.cli import main
from DistillSegLib.errors import DistillSegError
from DistillSegLib.export import int8, packaging
from DistillSegLib.export.int8 import Agreement, objection, quantise
from DistillSegLib.export.onnx import export_onnx
from DistillSegLib.export.packaging import build_package
from DistillSegLib.export.resizing import with_resize
from DistillSegLib.inference import check_variant, self_check
from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.package import read_package
from DistillSegLib.runtime import Session
from Testing.training.phantom_run import learnt, phantom, write_run

pytest.importorskip("openvino")
pytest.importorskip("nncf")

WINDOW = (16, 16, 24)
CONFIG = NetworkConfig("fast_unet", {"width": [16, 16]})


@pytest.fixture(scope="module")
def net():
    """A patch-stem student that has learnt the phantom in seconds."""
    return learnt(CONFIG, range(100, 160))


@pytest.fixture(scope="module")
def run(net, tmp_path_factory):
    """The folder of a run: a trained student and the cache of its cases."""
    folder = tmp_path_factory.mktemp("int8") / "run"
    write_run(folder, net, CONFIG, window=WINDOW, recipe={})
    return folder


def exported(run, out, **settings):
    told: list[str] = []
    package = build_package(
        run,
        stage="student",
        card=run / "card.toml",
        out=out,
        int8=True,
        calibration=False,
        on_remark=told.append,
        **settings,
    )
    return read_package(package), told


@pytest.mark.slow
def test_a_variant_that_keeps_the_labels_is_in_the_package(run, tmp_path):
    package, told = exported(run, tmp_path / "phantom.distillseg")
    assert len(told) == 1 and told[0].startswith("The int8 variant is kept: on 2 held-out cases")
    fp32, eight = package.manifest.variants
    assert (fp32.name, fp32.engines, fp32.tolerance) == ("fp32", (), None)
    assert (eight.name, eight.engines) == ("int8", ("openvino",))
    assert eight.size_bytes < fp32.size_bytes and eight.bytes_per_voxel > 4
    assert self_check(package) < package.manifest.tolerance
    assert package.variant().name == "fp32"
    segmenter = Segmenter(package, variant="int8")
    assert (segmenter.variant.name, segmenter.engine) == ("int8", "openvino")
    figures = package.manifest.provenance["int8"]
    assert figures["held_out_cases"] == 2
    for row, name in zip(figures["structures"], ("Front", "Back"), strict=True):
        assert row["structure"] == name and row["with_fp32"] >= 0.995
        assert row["fp32"] - row["int8"] <= 0.002 and row["fp32"] > 0.9
        assert f"| {name} | {row['with_fp32']:.4f} | {row['fp32']:.4f} |" in package.card


@pytest.mark.slow
def test_a_variant_that_changes_labels_is_left_out_in_one_sentence(
    run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 1.01)  # more than can be had
    arguments = ["--stage", "student", "--card", str(run / "card.toml"), "--int8"]
    out = tmp_path / "phantom.distillseg"
    assert main(["export", str(run), *arguments, "--out", str(out)]) == 0
    package = read_package(out)
    assert [variant.name for variant in package.manifest.variants] == ["fp32"]
    assert "int8" not in package.manifest.provenance and "int8" not in package.card
    printed = capsys.readouterr().out
    assert "The int8 variant is left out: on held-out cases its labels of 'Front' agree" in printed


@pytest.mark.slow
def test_quantised_logits_are_near_in_both_engines(net, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(net, WINDOW, path, coarse=True, multiple=net.multiple)
    windows = [phantom(seed)[0][None, :, :16, :20, :24] for seed in range(12)]
    model = quantise(path.read_bytes(), windows)
    assert model == quantise(path.read_bytes(), windows)  # nothing is drawn by chance
    operators = [node.op_type for node in onnx.load_model_from_string(model).graph.node]
    assert operators.count("QuantizeLinear") >= 5 and "Shape" not in operators
    other_size = phantom(50)[0][None, :, :12, :16, :20]
    for image in (windows[0], other_size):
        expected = Session(path, engine="onnxruntime")(image)
        for engine in ("openvino", "onnxruntime"):
            found = Session(model, engine=engine)(image)
            assert np.abs(found - expected).std() < 0.05 * expected.std(), engine
            assert (found.argmax(1) == expected.argmax(1)).mean() > 0.98, engine


@pytest.mark.parametrize("settings", [{"width": [16, 32, 16]}, {"width": [16, 16], "dims": 2}])
def test_one_resize_in_the_place_of_repetition_gives_the_same_numbers(tmp_path, settings):
    torch.manual_seed(0)
    net = build_network(NetworkConfig("fast_unet", settings), 1, 3)
    path = tmp_path / "model.onnx"
    export_onnx(net, WINDOW, path, coarse=net.stride > 1, multiple=net.multiple)
    before = onnx.load(path)
    after = with_resize(before)
    onnx.checker.check_model(after, full_check=True)
    operators = [node.op_type for node in after.graph.node]
    levels = len(settings["width"]) - 1
    assert sum(node.name.startswith("resize_") for node in after.graph.node) == levels
    assert len(operators) < len(before.graph.node)
    image = np.random.default_rng(0).normal(size=(2, 1, 16, 24, 32)).astype(np.float32)
    expected = Session(path, engine="onnxruntime")(image)
    for engine in ("onnxruntime", "openvino"):
        found = Session(after.SerializeToString(), engine=engine)(image)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_what_is_no_repetition_stays_as_it_is(tmp_path):
    class Pairs(torch.nn.Module):
        """Unsqueeze, Concat and Reshape, but of two different things."""

        def forward(self, image):
            return torch.stack((image, 2 * image), dim=3).flatten(2, 3)

    path = tmp_path / "model.onnx"
    export_onnx(Pairs(), WINDOW, path, multiple=4)
    before = onnx.load(path)
    assert [n.op_type for n in with_resize(before).graph.node] == [
        n.op_type for n in before.graph.node
    ]


@pytest.mark.parametrize(
    "with_fp32, fp32, eight, words",
    [
        (0.995, 0.900, 0.8981, ""),
        (0.9949, 0.9, 0.9, "agree with those of fp32 by a Dice of 0.9949, where 0.995 is needed"),
        (0.999, 0.9, 0.8979, "falls from 0.9000 to 0.8979, by more than 0.002"),
        (math.nan, 0.9, 0.9, "Dice of nan, where 0.995 is needed"),
        (0.999, math.nan, math.nan, ""),
    ],
)
def test_the_bounds_of_what_is_kept(with_fp32, fp32, eight, words):
    agreements = [Agreement("Sound", 1.0, 0.9, 0.95), Agreement("Doubt", with_fp32, fp32, eight)]
    assert words in objection(agreements) and bool(objection(agreements)) == bool(words)


def test_what_is_missing_is_said_before_the_export(run, tmp_path, monkeypatch):
    monkeypatch.delattr(packaging, "export_onnx")
    find = int8.find_spec
    monkeypatch.setattr(int8, "find_spec", lambda name: None if name == "nncf" else find(name))
    with pytest.raises(DistillSegError, match=r"needs nncf, .*pip install .distillseg\[openvino\]"):
        exported(run, tmp_path / "x")
    monkeypatch.undo()
    (tmp_path / "run").mkdir()
    for name in ("recipe.json", "student", "card.toml"):
        (tmp_path / "run" / name).symlink_to(run / name)
    with pytest.raises(DistillSegError, match="holds no readable cache"):
        exported(tmp_path / "run", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_model_that_is_not_itself_is_noticed_despite_its_own_tolerance(run, tmp_path):
    package, _ = exported(run, tmp_path / "phantom.distillseg")
    variant = package.variant("int8")
    session = Session(package.model_bytes(variant), engine="onnxruntime")
    assert check_variant(package, variant, session) <= variant.tolerance  # rounds otherwise
    expected = package.check_window(variant)[1]
    assert variant.tolerance < 0.3 * np.abs(expected).max()
