"""The command line for tests: a folder of its own, and what a command answered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.cli import main
from DistillSegLib.segmentations import read_segmentation
from Testing.models import LABELS, expected_labels, phantom, write_tiny_package

SEGMENT = ("segment", "scan.nii.gz", "--package", "threshold.distillseg")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where the user is: a package and an image, under a name that markup dislikes."""
    folder = tmp_path / "患者 @ [red]x"
    folder.mkdir()
    write_tiny_package(folder / "threshold.distillseg")
    sitk.WriteImage(phantom(), str(folder / "scan.nii.gz"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DISTILLSEG_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def labelled(folder) -> Path:
    """A data set of two phantoms with the model's own labels, the second one lacking a voxel."""
    data = folder / "data"
    for name in ("imagesTr", "labelsTr"):
        (data / name).mkdir(parents=True)
    for name, size in (("one", (20, 18, 16)), ("two", (20, 18, 15))):
        image = phantom(size)
        label = sitk.GetImageFromArray(expected_labels(image))
        label.CopyInformation(image)
        if name == "two":
            label[6, 9, 6] = 0
        sitk.WriteImage(image, str(data / "imagesTr" / f"{name}.nii.gz"))
        sitk.WriteImage(label, str(data / "labelsTr" / f"{name}.nii.gz"))
    described = {
        "name": "Phantoms",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", **{str(label.value): label.name for label in LABELS}},
        "training": [
            {"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"}
            for name in ("one", "two")
        ],
    }
    (data / "dataset.json").write_text(json.dumps(described))
    return data


def refused(capsys, *arguments: str, code: int = 1) -> str:
    """The one sentence with which a command ends; nothing else was printed."""
    assert run(*arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("\n") and printed.err.count("\n") == 1
    return printed.err


def run(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as ended:  # argparse ends by itself
        return ended.code


def values(path: str) -> np.ndarray:
    return sitk.GetArrayFromImage(read_segmentation(path).image)
