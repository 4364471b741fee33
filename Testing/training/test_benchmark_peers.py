"""The untrained networks of the benchmark, and other pipelines with the same weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from DistillSegLib.benchmark.measure import run_job
from DistillSegLib.benchmark.students import (
    STUDENTS,
    build,
    default_architecture,
    discriminant,
    mixed_share,
    preprocessing,
)
from DistillSegLib.benchmark.subject import CLASSES, Setup
from DistillSegLib.cli import main
from DistillSegLib.export.onnx import slow_operators
from DistillSegLib.inference import self_check
from DistillSegLib.networks import count_parameters
from DistillSegLib.package import read_package

# Small enough that no air is cut off around the body, so that all pipelines see the same voxels.
SMALL = Setup((32, 72, 84), (9.0, 3.0, 3.0), (32, 48, 56), (32, 32, 32))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict:
    """The students, made small, and a phantom: name -> files and figures."""
    folder = tmp_path_factory.mktemp("made")
    image = folder / "phantom.nii.gz"
    job = {"shape": SMALL.shape, "spacing_mm": SMALL.spacing_mm, "out": str(image)}
    run_job("phantom", job, threads=1)
    job = {"setup": asdict(SMALL), "names": list(STUDENTS), "folder": str(folder)}
    return run_job("students", job, threads=1)["found"] | {"image": str(image)}


@pytest.fixture(scope="module")
def ours(made, tmp_path_factory) -> str:
    out = str(tmp_path_factory.mktemp("ours") / "labels.nii.gz")
    package = made["untrained-full"]["package"]
    job = {"package": package, "engine": "onnxruntime", "image": made["image"], "out": out}
    run_job("lean", job, threads=1)
    return out


def peer(made: dict, work: str, out: Path, **more: str) -> dict:
    network = {
        "name": "untrained-full",
        "weights": made["untrained-full"]["weights"],
        "patch": SMALL.patch,
        "grid": SMALL.grid,
        "spacing_mm": SMALL.network_spacing_mm,
    }
    job = {"network": network, "image": made["image"], "out": str(out), **more}
    return run_job(work, job, threads=1)


def equal(first: str, second: Path) -> float:
    both = {"first": first, "second": str(second)}
    return run_job("agreement", both, threads=1)["found"]["share"]


def test_the_students_have_about_100_k_parameters_and_the_same_weights_every_time():
    for name in STUDENTS:
        net, again = build(name, SMALL.patch), build(name, SMALL.patch)
        assert 90_000 < count_parameters(net) < 115_000
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters()))


def test_the_students_are_sound_packages_without_slow_operators(made, tmp_path):
    for name in STUDENTS:
        package = read_package(made[name]["package"])
        assert package.manifest.preprocessing == preprocessing(SMALL)
        assert self_check(package, engine="onnxruntime") < package.manifest.tolerance
        model = tmp_path / f"{name}.onnx"
        model.write_bytes(package.model_bytes(package.variant()))
        assert slow_operators(model) == []


def test_the_labels_of_the_students_are_like_organs_and_not_noise(made):
    for name in STUDENTS:
        assert made[name]["like_phantom"] > 0.4  # of 14 classes, on a coarse grid
        assert 0.01 < made[name]["mixed"] < 0.7  # noise mixes nearly all cells


def test_the_discriminant_tells_shifted_clouds_apart_and_never_picks_what_is_absent():
    random = np.random.default_rng(0)
    centres = {0: (0, 0), 3: (5, 0), 7: (0, 5)}
    classes = np.repeat([0, 3, 7], 500)
    features = random.normal(0, 0.5, (1500, 2)) + [centres[k] for k in classes]
    weight, bias = discriminant(features.astype(np.float32), classes)
    assert weight.shape == (len(CLASSES), 2)
    found = (features @ weight.T + bias).argmax(axis=1)
    assert (found == classes).mean() > 0.999


def test_mixed_cells_are_those_whose_corners_differ():
    labels = np.zeros((3, 3, 3), np.uint8)  # eight cells
    labels[0, 0, 0] = 1  # the corner of one of them
    assert mixed_share(labels) == 1 / 8
    labels[1, 1, 1] = 1  # the corner of all
    assert mixed_share(labels) == 1


@pytest.mark.filterwarnings("ignore")  # of nnU-Net's own dependencies
def test_the_default_network_of_nnunet_has_31_million_parameters():
    pytest.importorskip("nnunetv2")
    net = build("nnunet-default", (128, 128, 128))
    assert count_parameters(net) == pytest.approx(31.2e6, rel=0.005)
    settings = default_architecture((128, 128, 128))["arch_kwargs"]
    assert np.prod(settings["strides"], axis=0).tolist() == [32, 32, 32]
    flat = default_architecture((32, 128, 128))["arch_kwargs"]  # at least four voxels remain
    assert np.prod(flat["strides"], axis=0).tolist() == [8, 32, 32]


def test_pytorch_gives_the_labels_of_our_pipeline(made, ours, tmp_path):
    found = peer(made, "torch", tmp_path / "labels.nii.gz")
    assert {"import", "preprocess", "network", "labels", "write"} <= set(found["stages"])
    assert equal(ours, tmp_path / "labels.nii.gz") > 0.9999


def test_monai_segments_the_same_with_its_own_resampling(made, ours, tmp_path):
    pytest.importorskip("nibabel")
    found = peer(made, "monai", tmp_path / "labels.nii.gz")
    assert found["found"]["parameters"] == made["untrained-full"]["parameters"]
    assert equal(ours, tmp_path / "labels.nii.gz") > 0.8


@pytest.mark.parametrize(("resampling", "least"), [("default", 0.9), ("torch", 0.93)])
def test_nnunet_segments_the_same_with_its_own_resampling(made, ours, tmp_path, resampling, least):
    pytest.importorskip("nnunetv2")
    peer(made, "nnunet", tmp_path / "labels.nii.gz", resampling=resampling)
    assert equal(ours, tmp_path / "labels.nii.gz") > least


@pytest.mark.slow
def test_the_command_compares_in_one_run(tmp_path, capsys):
    out = tmp_path / "a.json"
    words = "benchmark --quick --repeats 1 --threads 1 --engine onnxruntime --against torch"
    assert main([*words.split(), "--json", str(out)]) == 0
    said = capsys.readouterr().out
    assert "untrained" in said and "divided by DistillSeg" in said
    result = json.loads(out.read_text(encoding="utf-8"))
    (subject,) = result["subjects"]
    assert [row["work"] for row in subject["rows"]] == ["lean", "lean", "torch"]
    assert subject["rows"][2]["agreement"] > 0.5  # ours leaves out air around the body
    same = [each for each in subject["ratios"] if each["same_weights"]]
    assert len(same) == 1 and same[0]["cpu"] > 1
