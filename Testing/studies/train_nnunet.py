"""Train a small nnU-Net v2 by the package `nnunetv2` itself, as a teacher for a distillation.

    OMP_NUM_THREADS=1 python Testing/studies/train_nnunet.py Task04_Hippocampus --out nnunet

The data set is copied into nnU-Net's layout (.nii.gz), planned and preprocessed by nnU-Net, and its
folds are ours (`Dataset.split`, with `--folds` and `--split-seed`, the recipe's), so that who is
held out here is held out there. Width, batch and length are cut to what a processor manages, and
precision with `--bf16`; nothing else is changed, so the results folder is one like any other.
nnU-Net's fingerprint looks at all cases, as it does in its own cross-validation. nnU-Net as it
plans itself, on a GPU and in pieces, is `--features 32 --batch 9 --epochs 1000 --iterations 250
--device cuda --resume`, given again until it is done. What it cost is written to `trained-f0.json`,
beside nnU-Net's three folders.

    distillseg train my.toml --data Task04_Hippocampus --out run

where my.toml has, under [stages.frozen], teacher = { nnunet = "nnunet/results/Dataset004_…/…" }.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from DistillSegLib.datasets import Dataset, read_dataset
from DistillSegLib.files import write_text
from DistillSegLib.images import read_image, write_image
from DistillSegLib.segmentations import read_segmentation
from DistillSegLib.training.seeds import mixed

CONFIGURATION = "3d_fullres"
NUMBER = 4
# What all pieces and folds of a training have in common.
SAME = ("features", "batch", "epochs", "iterations", "seed", "bf16", "folds", "split_seed")
ONCE = {"bf16": False, "folds": 5, "split_seed": 0}  # what trainings had that do not tell of it
CLOCKS = {"cpu_seconds": time.process_time, "seconds": time.monotonic}


def main() -> None:
    """Convert, plan, preprocess, train and validate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of a data set")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for nnU-Net's three folders"
    )
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--folds", type=int, default=5, help="`split.folds` of the recipe")
    parser.add_argument("--split-seed", type=int, default=0, help="`split.seed` of the recipe")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--iterations", type=int, default=40, help="steps in each epoch")
    parser.add_argument("--features", type=int, default=16, help="of the finest level")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="nnU-Net itself sets none")
    parser.add_argument("--device", default="cpu", help="such as cuda")
    parser.add_argument(
        "--bf16", action="store_true", help="train in bfloat16; on a GPU, in place of float16"
    )
    parser.add_argument("--resume", action="store_true", help="go on from what is there, if any")
    options = parser.parse_args()
    values = {f"nnUNet_{n}": str(options.out / n) for n in ("raw", "preprocessed", "results")}
    os.environ.update(values, nnUNet_compile="0", nnUNet_def_n_proc="1", nnUNet_n_proc_DA="1")
    dataset = read_dataset(options.data)
    # nnU-Net itself takes other cases, without an error, for a fold that it does not know.
    dataset.split(options.folds, options.fold, options.split_seed)
    name = f"Dataset{NUMBER:03d}_{re.sub(r'[^A-Za-z0-9]', '', dataset.name)}"
    preprocessed = options.out / "preprocessed" / name
    asked = {key: getattr(options, key) for key in SAME} | {"data": dataset.name}
    if options.resume and (preprocessed / "splits_final.json").is_file():
        check_asked(options.out / "asked.json", asked)
    else:
        write_text(options.out / "asked.json", json.dumps(asked))
        write_raw(dataset, options.out / "raw" / name)
        plan(preprocessed, options.features, options.batch)
        folds = folds_of(dataset, options.folds, options.split_seed)
        write_text(preprocessed / "splits_final.json", json.dumps(folds, indent=1))
    train(options)


def write_raw(dataset: Dataset, folder: Path) -> None:
    """The data set in nnU-Net's layout; label values must be 1, 2, … without gaps."""
    values = [label.value for label in dataset.labels]
    if values != list(range(1, len(values) + 1)):
        raise SystemExit(f"nnU-Net needs the labels 1, 2, …, found {values}.")
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for case in dataset.cases:
        for channel, image in enumerate(case.images):
            place = folder / "imagesTr" / f"{case.id}_{channel:04d}.nii.gz"
            put(image, place, read_image)
        place = folder / "labelsTr" / f"{case.id}.nii.gz"
        put(case.label, place, lambda file: read_segmentation(file, dataset.labels).image)
    described = {
        "channel_names": {str(i): channel for i, channel in enumerate(dataset.channels)},
        "labels": {"background": 0} | {label.name: label.value for label in dataset.labels},
        "numTraining": len(dataset.cases),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described, indent=1))


def put(file: Path, place: Path, read: Callable[[Path], sitk.Image]) -> None:
    """The file at `place`, which ends in ".nii.gz"; what `read` makes of it if it is of others."""
    if file.name.lower().endswith(".nii.gz"):
        shutil.copy(file, place)
    else:
        write_image(read(file), place)


def folds_of(dataset: Dataset, folds: int, seed: int) -> list[dict[str, list[str]]]:
    """Our folds as nnU-Net reads them."""
    splits = [dataset.split(folds, fold, seed) for fold in range(folds)]
    return [{"train": [c.id for c in a], "val": [c.id for c in b]} for a, b in splits]


def plan(folder: Path, features: int, batch: int) -> None:
    """nnU-Net's plans, narrowed, and its preprocessed cases."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet

    nnunet.extract_fingerprint_dataset(NUMBER, num_processes=1)
    nnunet.plan_experiment_dataset(NUMBER)
    file = folder / "nnUNetPlans.json"
    plans = json.loads(file.read_text(encoding="utf-8"))
    configured = plans["configurations"][CONFIGURATION]
    configured["batch_size"] = batch
    settings = configured["architecture"]["arch_kwargs"]
    widths = [min(features * 2**level, 320) for level in range(settings["n_stages"])]
    settings["features_per_stage"] = widths
    file.write_text(json.dumps(plans, indent=1))
    nnunet.preprocess_dataset(NUMBER, configurations=(CONFIGURATION,), num_processes=(1,))


def check_asked(path: Path, asked: dict) -> None:
    """Refuse to go on with other settings than before: nnU-Net would mix both without a word."""
    if not path.is_file():
        raise SystemExit(
            f"'{path.parent}' holds a training whose settings are not known; give another --out."
        )
    before = ONCE | json.loads(path.read_text(encoding="utf-8"))
    changed = [
        f"{key} {before[key]}, now {asked[key]}" for key in asked if before[key] != asked[key]
    ]
    if changed:
        raise SystemExit(
            f"'{path.parent}' was begun with {'; '.join(changed)}; give the same, or another --out."
        )


def train(options: argparse.Namespace) -> None:
    """nnU-Net's own training and validation of one fold."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 - nnU-Net spells it so
    device = torch.device(options.device)
    sow(options.seed)
    trainer = get_trainer_from_args(str(NUMBER), CONFIGURATION, options.fold, device=device)
    trainer.num_epochs = options.epochs
    trainer.num_iterations_per_epoch = options.iterations
    trainer.num_val_iterations_per_epoch = 5
    trainer.save_every = 10
    maybe_load_checkpoint(trainer, options.resume, False)
    if trainer.current_epoch:  # else its patches would be those of the first epochs once more
        sow(mixed(options.seed, trainer.current_epoch))
    spent = counted(trainer, options.out / f"spent-f{options.fold}.json", options.resume)
    if not trainer.was_initialized:
        trainer.initialize()
    with sixteen_bits(trainer.network) if options.bf16 else contextlib.nullcontext():
        trainer.run_training()
    trainer.perform_actual_validation()
    cost = {key: sum(epoch[key] for epoch in spent) for key in CLOCKS}
    trained = {
        "parameters": sum(weight.numel() for weight in trainer.network.parameters()),
        "epochs": options.epochs,
        "steps": options.epochs * options.iterations,
        "cpu_minutes": round(cost["cpu_seconds"] / 60, 2),
        "minutes": round(cost["seconds"] / 60, 2),
        "model": trainer.output_folder_base,
        "predictions": f"{trainer.output_folder}/validation",
    }
    write_text(options.out / f"trained-f{options.fold}.json", json.dumps(trained, indent=1) + "\n")
    print(f"The teacher: {trainer.output_folder_base}, folds = [{options.fold}]")


def sow(seed: int) -> None:
    """Seed all that nnU-Net draws from."""
    import torch

    for seeded in (random.seed, np.random.seed, torch.manual_seed):
        seeded(seed)


@contextlib.contextmanager
def sixteen_bits(network: Any) -> Iterator[None]:
    """The network in bfloat16; its logits are cast to 32 bits, in which the loss is taken.

    nnU-Net trains in float16 on a GPU and in 32 bits on a processor, where a step of the network
    then took twice as long (0.75 for 0.36 s; 16 features, batch 2, one core of an EPYC).
    """
    import torch

    full = network.forward

    def forward(images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        with torch.autocast(images.device.type, torch.bfloat16):
            logits = full(images)
        if isinstance(logits, torch.Tensor):
            return logits.float()
        return [scale.float() for scale in logits]  # finest first

    network.forward = forward
    try:
        yield
    finally:
        del network.forward  # the class's again


def counted(trainer: Any, path: Path, resume: bool) -> list[dict[str, float]]:
    """What each of its epochs cost, those of earlier pieces included; kept in `path` after each.

    A trainer that was stopped goes on from its last checkpoint. What it spent on epochs after that
    is left out, for it does them again.
    """
    spent = spent_before(path, trainer.current_epoch) if resume else []
    before = {key: clock() for key, clock in CLOCKS.items()}
    finish = trainer.on_epoch_end

    def count() -> None:
        for key, clock in CLOCKS.items():
            now = clock()
            spent[-1][key] += now - before[key]
            before[key] = now
        write_text(path, json.dumps(spent))

    def on_epoch_end() -> None:
        spent.append(dict.fromkeys(CLOCKS, 0.0))
        count()  # also before the checkpoint, which may be the last thing that is done
        finish()
        count()

    trainer.on_epoch_end = on_epoch_end
    return spent


def spent_before(path: Path, epochs: int) -> list[dict[str, float]]:
    """What the first `epochs` cost; SystemExit where `path` does not tell of all of them."""
    if not epochs:
        return []
    spent = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    if not isinstance(spent, list) or len(spent) < epochs:
        raise SystemExit(
            f"'{path}' does not hold what each of the first {epochs} epochs cost; give another "
            "--out."
        )
    return spent[:epochs]


if __name__ == "__main__":
    main()
