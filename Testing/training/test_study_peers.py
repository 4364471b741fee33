"""Arms that no recipe trains: bundled packages, and nnU-Net by its own package."""

from __future__ import annotations

import json
import time

import pytest
import SimpleITK as sitk
import study_design as studies
import study_peers
import torch
import train_nnunet
from study import do

from DistillSegLib.datasets import read_dataset
from DistillSegLib.errors import DatasetError
from DistillSegLib.records import from_dict
from Testing.datasets import write_decathlon
from Testing.training.small_study import SMALL, plain, study_of


def test_a_package_is_not_scored_on_cases_that_it_knows(small, tmp_path):
    arm = studies.Arm("reference", "as bundled", package="hippocampus-reference")
    words = "trained on fold 0 of 5 .*, the run 'reference-f1-s0' is of fold 1 of 5"
    with pytest.raises(DatasetError, match=words):
        do(study_of(small, arm), studies.Run(arm, 1, 0), {"": tmp_path}, tmp_path, [])


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
    train_nnunet.check_asked(tmp_path / "asked.json", asked | {"bf16": False})
    with pytest.raises(SystemExit, match="begun with bf16 False, now True"):
        train_nnunet.check_asked(tmp_path / "asked.json", asked | {"bf16": True})
    with pytest.raises(SystemExit, match="whose settings are not known; give another --out"):
        train_nnunet.check_asked(tmp_path / "older" / "asked.json", asked)


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


def test_what_an_nnunet_costs_counts_all_its_pieces(tmp_path):
    """A trainer that is stopped after two epochs and goes on for one."""

    class Trainer:
        def on_epoch_end(self):
            time.sleep(0.01)

    path = tmp_path / "spent-f0.json"
    first, second = Trainer(), Trainer()
    train_nnunet.counted(first, path, resume=True)
    first.on_epoch_end()
    first.on_epoch_end()
    before = json.loads(path.read_text())["seconds"]
    assert before >= 0.02
    cost = train_nnunet.counted(second, path, resume=True)
    assert cost["seconds"] == before
    second.on_epoch_end()
    assert cost["seconds"] >= before + 0.01
    assert train_nnunet.counted(Trainer(), path, resume=False)["seconds"] == 0
