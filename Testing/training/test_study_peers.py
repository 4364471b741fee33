"""Arms that no recipe trains: bundled packages, and nnU-Net by its own package."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import study_design as studies
import study_peers
import torch
import train_nnunet
from study import do

from DistillSegLib.datasets import read_dataset
from DistillSegLib.errors import DatasetError, RecipeError
from DistillSegLib.records import from_dict
from Testing.datasets import write_decathlon
from Testing.training.small_study import SMALL, plain, study_of


def test_a_package_is_not_scored_on_cases_that_it_knows(small, tmp_path):
    arm = studies.Arm("reference", "as bundled", package="hippocampus-reference")
    words = "trained on fold 0 of 5 .*, the run 'reference-f1-s0' is of fold 1 of 5"
    with pytest.raises(DatasetError, match=words):
        do(study_of(small, arm), studies.Run(arm, 1, 0), {"": tmp_path}, tmp_path, [])


def test_a_package_of_two_data_sets_is_refused_in_a_sentence(small, tmp_path):
    arm = studies.Arm("reference", "as bundled", package="hippocampus-reference")
    data = {"ct": tmp_path, "mr": tmp_path}
    with pytest.raises(RecipeError, match=r"'reference' takes one data set, .* 2 \(ct, mr\); give"):
        do(study_of(small, arm), studies.Run(arm, 0, 0), data, tmp_path, [])


def test_predictions_made_elsewhere_are_scored_as_ours_are(small, tmp_path):
    """The references themselves, but for one case of which a structure is left out."""
    data = write_decathlon(tmp_path / "data", cases=10)
    dataset = read_dataset(data)
    _, held_out = dataset.split(5, 0, seed=0)
    ball = next(iter(dataset.labels)).value
    for number, case in enumerate(held_out):
        made = sitk.ReadImage(str(case.label))
        if number == 0:
            made *= sitk.Cast(made != ball, made.GetPixelID())
        sitk.WriteImage(made, str(tmp_path / f"{case.id}.nii.gz"))
    arm = studies.Arm("nnunet", "nnU-Net", nnunet=("--features=8",))
    run, scores = studies.Run(arm, 0, 0), tmp_path / "scores.json"
    (tmp_path / "named.toml").write_text(
        SMALL.replace(
            "[[stages]]",
            f'[[labels]]\nvalue = {ball}\nname = "Sphere"\ncolor = [1, 2, 3]\n[[stages]]',
            1,
        )
    )
    study = from_dict(studies.Study, plain(small) | {"recipe": str(tmp_path / "named.toml")})
    found = study_peers.predicted(study, run, data, tmp_path, scores)
    assert found["labelled_cases"] == 8 and len(found["cases"]) == 2
    first, second = found["cases"].values()
    assert first["Sphere"] == [0, None, 0] and second["Sphere"] == [1, 0, 1]
    (tmp_path / f"{held_out[1].id}.nii.gz").unlink()
    with pytest.raises(DatasetError, match=f"nnU-Net's '{held_out[1].id}' has no scores"):
        study_peers.predicted(study, run, data, tmp_path, scores)


def test_an_nnunet_is_not_continued_with_other_settings(tmp_path):
    asked = {"features": 8, "batch": 2, "epochs": 40}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    train_nnunet.check_asked(tmp_path / "asked.json", asked)
    words = "begun with features 8, now 16; epochs 40, now 20; give the same, or another --out"
    with pytest.raises(SystemExit, match=words):
        train_nnunet.check_asked(tmp_path / "asked.json", asked | {"features": 16, "epochs": 20})
    once = {"bf16": False, "folds": 5, "split_seed": 0}
    train_nnunet.check_asked(tmp_path / "asked.json", asked | once)
    with pytest.raises(SystemExit, match="begun with bf16 False, now True"):
        train_nnunet.check_asked(tmp_path / "asked.json", asked | {"bf16": True})
    with pytest.raises(SystemExit, match="whose settings are not known; give another --out"):
        train_nnunet.check_asked(tmp_path / "older" / "asked.json", asked)


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha", ".nii.gz"])
def test_an_nnunet_is_given_the_voxels_whatever_files_hold_them(tmp_path, ending):
    """Under a name in .nii.gz lies NIfTI, on the same grid; what is so already is only copied."""
    data = write_decathlon(
        tmp_path / "data", cases=2, spacing_mm=(3.0, 2.0, 1.0), labels={1: "Ball", 2: "Tail"}
    )
    described = json.loads((data / "dataset.json").read_text())
    for entry in described["training"]:
        for file in (*entry["image"], entry["label"]):
            image = sitk.ReadImage(str(data / file))
            if file == entry["label"]:  # nnU-Net counts labels from 1
                image = sitk.ChangeLabel(image, {3: 1, 7: 2})
            image.SetOrigin((5.0, -6.0, 7.0))
            sitk.WriteImage(image, str(data / file.replace(".nii.gz", ending)))
    text = json.dumps(described).replace(".nii.gz", ending)
    (data / "dataset.json").write_text(text)
    dataset = read_dataset(data)
    train_nnunet.write_raw(dataset, tmp_path / "raw")
    for case in dataset.cases:
        for file, name in (
            (case.images[0], f"imagesTr/{case.id}_0000.nii.gz"),
            (case.label, f"labelsTr/{case.id}.nii.gz"),
        ):
            made, given = sitk.ReadImage(str(tmp_path / "raw" / name)), sitk.ReadImage(str(file))
            assert (tmp_path / "raw" / name).read_bytes()[:2] == b"\x1f\x8b"  # of gzip
            assert made.GetOrigin() == (5.0, -6.0, 7.0) and made.GetSpacing() == (1.0, 2.0, 3.0)
            assert np.array_equal(sitk.GetArrayFromImage(made), sitk.GetArrayFromImage(given))
            if ending == ".nii.gz":
                assert (tmp_path / "raw" / name).read_bytes() == file.read_bytes()
    assert len(list((tmp_path / "raw").rglob("*.nii.gz"))) == 4


def planned(data, out, monkeypatch, *words) -> list[dict]:
    """The folds that nnU-Net is given; it does not itself take part."""
    monkeypatch.setattr(train_nnunet, "plan", lambda *settings: None)
    monkeypatch.setattr(train_nnunet, "train", lambda options: None)
    values = ("raw", "preprocessed", "results")
    for name in (*(f"nnUNet_{value}" for value in values), "nnUNet_compile"):
        monkeypatch.setenv(name, "")
    for name in ("nnUNet_def_n_proc", "nnUNet_n_proc_DA"):
        monkeypatch.setenv(name, "1")
    words = ["train_nnunet.py", str(data), "--out", str(out), *words]
    monkeypatch.setattr(sys, "argv", words)
    train_nnunet.main()
    (file,) = out.glob("preprocessed/*/splits_final.json")
    return json.loads(file.read_text())


def test_an_nnunet_holds_out_the_cases_that_a_recipe_does(tmp_path, monkeypatch):
    labels = {0: "background", 1: "Ball", 2: "Tail"}
    data = write_decathlon(tmp_path / "data", cases=10, labels=labels)
    dataset = read_dataset(data)

    def held_out(folds, seed):
        splits = [dataset.split(folds, fold, seed)[1] for fold in range(folds)]
        return [[case.id for case in cases] for cases in splits]

    def given(name, *words):
        return [fold["val"] for fold in planned(data, tmp_path / name, monkeypatch, *words)]

    assert given("plain") == held_out(5, 0) != held_out(5, 3)
    words = ("--folds", "4", "--split-seed", "3", "--fold", "3")
    assert given("other", *words) == held_out(4, 3)
    with pytest.raises(SystemExit, match="begun with folds 4, now 5; split_seed 3, now 0; give"):
        given("other", "--resume")
    with pytest.raises(DatasetError, match="Fold 4 does not exist among 4; choose 0 to 3"):
        given("third", "--folds", "4", "--fold", "4")
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("heads", [1, 2])
def test_an_nnunet_in_sixteen_bits_has_logits_and_gradients_of_32(heads):
    """And is itself again after it: predictions are made in 32 bits."""
    torch.manual_seed(0)
    convolution = torch.nn.Conv3d(1, 2, 3)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = convolution

        def forward(self, images):
            self.seen = self.convolution(images)
            return self.seen if heads == 1 else [self.seen] * heads

    network, images = Network(), torch.randn(2, 1, 6, 6, 6)
    exact = convolution(images)
    with train_nnunet.sixteen_bits(network):
        found = network(images)
        assert network.seen.dtype == torch.bfloat16
    for logits in [found] if heads == 1 else found:
        assert logits.dtype == torch.float32
        assert 0 < (logits - exact).abs().max() < 0.02
    (found if heads == 1 else found[-1]).sum().backward()
    assert convolution.weight.grad.dtype == torch.float32
    network(images)
    assert torch.equal(network.seen, exact)


class Trainer:
    """Stands for nnU-Net's: an epoch draws a number from each generator; checkpoints are each 2."""

    was_initialized = True
    network = torch.nn.Linear(1, 1)

    def __init__(self, folder, stop=math.inf):
        self.file, self.stop, self.current_epoch, self.drawn = folder / "latest", stop, 0, []
        self.output_folder_base = self.output_folder = str(folder)

    def run_training(self):
        while self.current_epoch < min(self.num_epochs, self.stop):
            self.drawn.append((random.random(), np.random.random(), torch.rand(1).item()))
            self.on_epoch_end()

    def on_epoch_end(self):
        time.sleep(0.01)
        self.current_epoch += 1
        if self.current_epoch % 2 == 0:
            self.file.write_text(str(self.current_epoch))

    def perform_actual_validation(self):
        if self.current_epoch < self.num_epochs:
            raise KeyboardInterrupt


def trained(folder, monkeypatch, *, stop=math.inf, epochs=4) -> Trainer:
    """A piece of a training, with nnU-Net's own part played by `Trainer`."""
    trainer = Trainer(folder, stop)

    def load(found, resume, _):
        if resume and found.file.is_file():
            found.current_epoch = int(found.file.read_text())

    parts = {
        "get_trainer_from_args": lambda *names, **device: trainer,
        "maybe_load_checkpoint": load,
    }
    for name in ("nnunetv2", "nnunetv2.run", "nnunetv2.run.run_training"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**parts))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    form = {"out": folder, "fold": 0, "seed": 5, "device": "cpu", "bf16": False, "resume": True}
    with contextlib.suppress(KeyboardInterrupt):
        train_nnunet.train(argparse.Namespace(epochs=epochs, iterations=1, **form))
    return trainer


def test_an_nnunet_that_goes_on_draws_other_patches_than_at_its_start(tmp_path, monkeypatch):
    first = trained(tmp_path, monkeypatch, stop=2).drawn
    second = trained(tmp_path, monkeypatch).drawn
    assert len(set(first + second)) == 4
    for column in zip(*first, *second):
        assert len(set(column)) == len(column)
    (tmp_path / "latest").write_text("2")
    assert trained(tmp_path, monkeypatch).drawn == second  # the same from the same checkpoint


def test_what_an_nnunet_costs_counts_all_its_pieces(tmp_path, monkeypatch):
    """A trainer that is stopped after three epochs, goes back by one and goes on for two."""
    path = tmp_path / "spent-f0.json"
    trained(tmp_path, monkeypatch, stop=3)
    before = json.loads(path.read_text())
    assert len(before) == 3 and all(epoch["seconds"] >= 0.01 for epoch in before)
    before[0]["seconds"], before[2]["seconds"] = 600.0, 6000.0
    path.write_text(json.dumps(before))
    trained(tmp_path, monkeypatch)
    after = json.loads(path.read_text())
    assert len(after) == 4 and after[:2] == before[:2] and after[2] != before[2]
    found = json.loads((tmp_path / "trained-f0.json").read_text())
    assert found["minutes"] == pytest.approx(10, abs=0.1) and found["epochs"] == 4

    trained(tmp_path, monkeypatch)  # nothing is left to do
    assert json.loads(path.read_text()) == after
    trainer = Trainer(tmp_path)
    assert train_nnunet.counted(trainer, path, resume=True) == []  # no checkpoint: from the start
    path.write_text(json.dumps({"cpu_seconds": 9.0, "seconds": 9.0}))
    with pytest.raises(SystemExit, match="what each of the first 4 epochs cost; give another"):
        trained(tmp_path, monkeypatch)
