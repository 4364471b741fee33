"""Arms of a study that no recipe trains: a bundled package, and nnU-Net by its own package.

Both are scored as every other arm is: on the held-out cases, on the images' own grids.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from study_commands import command, scores_in, script
from study_design import Run, Study, recipe_path

from DistillSegLib.datasets import read_dataset
from DistillSegLib.errors import DatasetError
from DistillSegLib.evaluation import evaluate
from DistillSegLib.files import write_text
from DistillSegLib.inference import Segmenter
from DistillSegLib.labels import LabelTable
from DistillSegLib.segmentations import read_segmentation
from DistillSegLib.training.recipe import load_recipe

FOLDS, SPLIT_SEED = 5, 0  # as in every recipe of the studies


def package(run: Run, data: Path, out: Path) -> dict[str, Any]:
    """A bundled model on the cases that it was not trained on; its training's cost is not kept."""
    segmenter = Segmenter(run.arm.package)
    provenance = segmenter.package.manifest.provenance
    split = provenance["split"]
    if (split["folds"], split["fold"], split["seed"]) != (FOLDS, run.fold, SPLIT_SEED):
        raise DatasetError(
            f"'{run.arm.package}' was trained on fold {split['fold']} of {split['folds']} (seed "
            f"{split['seed']}), the run '{run.name}' is of fold {run.fold} of {FOLDS} (seed "
            f"{SPLIT_SEED}): it would be scored on cases that it knows."
        )
    out.mkdir(parents=True, exist_ok=True)
    scores = out / "scores.json"
    command("evaluate", run.arm.package, "--data", data, "--cases", "held-out", "--json", scores)
    known = len(read_dataset(data).cases) - len(provenance["held_out_cases"])
    facts = {"parameters": segmenter.variant.parameters, "labelled_cases": known}
    return facts | {"epochs": None, "cpu_minutes": None, "cases": scores_in(scores)}


def nnunet(study: Study, run: Run, data: Path, out: Path) -> dict[str, Any]:
    """nnU-Net trained on the cases of a fold, its own predictions of the others scored by us."""
    words = [data, "--out", out, "--fold", run.fold, "--seed", run.seed, "--resume"]
    script("train_nnunet.py", *words, *run.arm.nnunet)
    trained = json.loads((out / f"trained-f{run.fold}.json").read_text(encoding="utf-8"))
    facts = {key: trained[key] for key in ("parameters", "epochs", "cpu_minutes", "minutes")}
    return facts | predicted(study, run, data, Path(trained["predictions"]), out / "scores.json")


def predicted(study: Study, run: Run, data: Path, folder: Path, scores: Path) -> dict[str, Any]:
    """Label maps of the held-out cases scored, with the names that the study's recipe gives.

    Args:
        folder: holds "<case>.nii.gz".
        scores: the file to be written, as by `distillseg evaluate --json`.
    """
    dataset = read_dataset(data)
    known, held_out = dataset.split(FOLDS, run.fold, SPLIT_SEED)
    named = {label.value: label for label in load_recipe(recipe_path(study.recipe)).labels}
    labels = LabelTable(tuple(named.get(label.value, label) for label in dataset.labels))
    found = evaluate(
        lambda case: read_segmentation(folder / f"{case.id}.nii.gz", labels),
        held_out,
        labels=labels,
    )
    if found.failures:
        first = found.failures[0]
        raise DatasetError(f"nnU-Net's '{first.case}' has no scores ({first.failure}).")
    write_text(scores, json.dumps(found.to_dict()))
    return {"labelled_cases": len(known), "cases": scores_in(scores)}
