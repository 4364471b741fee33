"""A real nnU-Net, trained by the package `nnunetv2` on phantoms in seconds, for the tests."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing.dummy
import os
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from Testing.datasets import phantom, write_image

NAME = "Dataset001_Phantoms"
NAMES = {"background": 0, "Ball": 1, "Tail": 2}


def write_raw(
    folder: Path, *, channel: str, size: tuple, spacing_mm: tuple, cases: int = 6
) -> Path:
    """A data set in nnU-Net's raw layout, which ours read too."""
    for number in range(cases):
        (image,), label = phantom(number, size)
        image = np.where(image == 0, 1, image)  # nnU-Net would cut off margins of zeros
        write_image(folder / f"imagesTr/case_{number:02d}_0000.nii.gz", image, spacing_mm)
        label = np.searchsorted([0, 3, 7], label).astype(np.uint8)
        write_image(folder / f"labelsTr/case_{number:02d}.nii.gz", label, spacing_mm)
    described = {
        "channel_names": {"0": channel},
        "labels": NAMES,
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


@contextlib.contextmanager
def nnunet_at(root: Path):
    """nnU-Net's folders below `root`, and none of its many words.

    Its pools of processes become threads of this one: each process would import torch anew.
    """
    values = {f"nnUNet_{name}": str(root / name) for name in ("raw", "preprocessed", "results")}
    values |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "0", "nnUNet_def_n_proc": "1"}
    real = multiprocessing.get_context

    def threads(kind=None):
        return multiprocessing.dummy if kind == "spawn" else real(kind)

    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            mock.patch("multiprocessing.get_context", threads),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


def plan(
    root: Path,
    channel: str = "MRI",
    *,
    size: tuple[int, int, int] = (20, 20, 16),
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Path:
    """Phantoms, measured and planned for; `root` again."""
    write_raw(root / "raw" / NAME, channel=channel, size=size, spacing_mm=spacing_mm)
    with nnunet_at(root):
        from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet

        def extractor(*settings, **more):
            made = nnunet.DatasetFingerprintExtractor(*settings, **more)
            made.num_foreground_voxels_for_intensitystats = (
                1e4  # of 1e8, which take seconds to sort
            )
            return made

        nnunet.extract_fingerprint_dataset(1, extractor, num_processes=1, show_progress_bar=False)
        nnunet.plan_experiment_dataset(1)
    return root


def train(root: Path, configuration: str = "3d_fullres") -> Path:
    """Preprocess and train what is planned, narrow and for three steps; the results folder."""
    file = root / "preprocessed" / NAME / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    configured = plans["configurations"][configuration]
    configured["batch_size"] = 2
    settings = configured["architecture"]["arch_kwargs"]
    settings["features_per_stage"] = [4 * 2**level for level in range(settings["n_stages"])]
    file.write_text(json.dumps(plans))
    with nnunet_at(root):
        from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet
        from nnunetv2.run.run_training import get_trainer_from_args

        nnunet.preprocess_dataset(
            1, configurations=(configuration,), num_processes=(1,), show_progress_bar=False
        )
        os.environ.update(nnUNet_n_proc_DA="0")  # patches are varied in this process
        torch.manual_seed(0)
        np.random.seed(0)
        trainer = get_trainer_from_args("1", configuration, 0, device=torch.device("cpu"))
        trainer.num_epochs, trainer.num_iterations_per_epoch = 1, 3
        trainer.num_val_iterations_per_epoch = 1
        trainer.logger.plot_progress_png = lambda _folder: None
        trainer.run_training()
    return root / "results" / NAME / f"nnUNetTrainer__nnUNetPlans__{configuration}"
