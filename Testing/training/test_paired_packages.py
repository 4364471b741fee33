"""What comes of a training on several data sets: a package and scores of each."""

from __future__ import annotations

import json

import pytest
import SimpleITK as sitk
import torch

from DistillSegLib.cli import main
from DistillSegLib.datasets import read_dataset
from DistillSegLib.errors import RecipeError
from DistillSegLib.export import packaging
from DistillSegLib.export.packaging import build_package
from DistillSegLib.inference import Segmenter
from DistillSegLib.metrics import dice
from DistillSegLib.networks.domains import MultiDomain
from DistillSegLib.runtime import Session
from DistillSegLib.segmentations import read_segmentation
from DistillSegLib.training.cache import open_cache
from DistillSegLib.training.checkpoints import load_network, load_specialised
from DistillSegLib.training.stages import run
from Testing.training.paired_run import recipe

CARD = """
id = "phantom-{domain}"
version = "1.0.0"
title = "Phantom"
description = "Two parts of a phantom."
intended_use = "Tests."
licence = "CC0-1.0"
attribution = "Made by code."
"""


@pytest.mark.parametrize("domain", ["ct", "mr"])
def test_a_package_of_one_modality_says_what_the_whole_network_says(
    joint, modalities, caches, tmp_path, monkeypatch, domain
):
    monkeypatch.setattr(packaging, "measure_memory", lambda path, channels, multiple: 100.0)
    (tmp_path / "card.toml").write_text(CARD.format(domain=domain))
    out = tmp_path / "model.distillseg"
    build_package(joint[0], stage="student", card=tmp_path / "card.toml", out=out, domain=domain)
    segmenter = Segmenter(out)
    manifest, cache = segmenter.package.manifest, caches[domain]
    assert manifest.modality == {"ct": "CT", "mr": "MR"}[domain]
    assert manifest.preprocessing == cache.plan.preprocessing
    assert manifest.provenance["held_out_cases"] == list(cache.held_out)
    assert manifest.provenance["trained_on"]["mr"] == "Phantoms (CC0-1.0)"

    whole, _ = load_network(joint[0] / "student" / "student.pt")
    assert isinstance(whole, MultiDomain)
    window = torch.randn(2, 1, 8, 12, 16)
    index = whole.domains.index(domain)
    with torch.no_grad():
        expected = whole(window, torch.full((2,), index))
    variant = segmenter.package.variant()
    coarse = Session(segmenter.package.model_bytes(variant))(window.numpy())
    found = torch.nn.functional.interpolate(
        torch.from_numpy(coarse), scale_factor=variant.stride, mode="trilinear"
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)

    case = next(c for c in read_dataset(modalities[domain]).cases if c.id in cache.held_out)
    found, reference = segmenter.segment(case.images), read_segmentation(case.label, cache.labels)
    found, reference = (sitk.GetArrayFromImage(each.image) for each in (found, reference))
    assert dice(found == 7, reference == 7) > 0.6


def test_a_domain_that_is_missing_or_unknown_is_named(joint, tmp_path, monkeypatch):
    monkeypatch.delattr(packaging, "export_onnx")
    (tmp_path / "card.toml").write_text(CARD.format(domain="x"))
    files = {"stage": "student", "card": tmp_path / "card.toml", "out": tmp_path / "x"}
    with pytest.raises(RecipeError, match="domains ct, mr, asked for none; choose one of them"):
        build_package(joint[0], **files)
    with pytest.raises(RecipeError, match="domains ct, mr, asked for 'pet'; choose one of them"):
        build_package(joint[0], domain="pet", **files)


def test_a_run_is_evaluated_in_one_of_its_modalities(joint, modalities, tmp_path, capsys):
    model, table = str(joint[0]), tmp_path / "scores.json"
    assert main(["evaluate", model, "--data", f"mr={modalities['mr']}", "--json", str(table)]) == 0
    scores = json.loads(table.read_text())
    assert scores["cases_chosen"] == "held out from training"
    assert {row["case"] for row in scores["cases"]} == set(
        open_cache(joint[0] / "cache" / "mr").held_out
    )
    by_name = ["evaluate", model, "--data", str(modalities["mr"]), "--domain", "mr"]
    assert main([*by_name, "--json", str(tmp_path / "b.json")]) == 0
    assert json.loads((tmp_path / "b.json").read_text())["summary"][0] == scores["summary"][0]
    capsys.readouterr()
    assert main(["evaluate", model, "--data", str(modalities["mr"])]) == 1
    assert "domains ct, mr, asked for none" in capsys.readouterr().err


def test_a_network_of_one_data_set_has_no_domain_to_choose(tmp_path, modalities):
    overrides = ["stages.student.trained.student.domains=[]", "stages.student.epochs=1"]
    links = ["stages.student.links.agreement.term=label"]
    run(
        recipe(*overrides, *links, "stages.student.links.agreement.settings={}"),
        {"": modalities["ct"]},
        tmp_path / "run",
    )
    path = tmp_path / "run" / "student" / "student.pt"
    assert load_specialised(path)[1]["plan"]["channels"] == ["CT"]
    with pytest.raises(RecipeError, match="trained on one data set, asked for 'ct'"):
        load_specialised(path, "ct")
