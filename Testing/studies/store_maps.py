"""Store what a trained network says of a data set, so that students need not run it.

    python Testing/studies/store_maps.py run --stage teacher --data LeftVentricle --out maps

writes `maps/<case>.npy`, probabilities (K, D, H, W) on the grid of the case's image, for all cases
that the network was trained on. A recipe takes them as `frozen.teacher = { stored = "maps" }`; they
are turned and cropped with the image, and cost a step hardly more than a label does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from DistillSegLib.commands.train import read_domains
from DistillSegLib.datasets import Case, read_dataset
from DistillSegLib.images import read_image
from DistillSegLib.records import from_dict
from DistillSegLib.training.checkpoints import load_specialised
from DistillSegLib.training.folder import checkpoint_of
from DistillSegLib.training.plan import Plan
from DistillSegLib.training.validation import torch_predictor, volume_logits
from DistillSegLib.upsampling import map_on


def probabilities(net: torch.nn.Module, plan: Plan, case: Case) -> NDArray[np.float16]:
    """(K, D, H, W) on the grid of the case's image; between the network's voxels linearly."""
    images = [read_image(path) for path in case.images]
    prepared = plan.preprocessing.apply(images)
    logits = volume_logits(net, prepared.array, torch_predictor(net), plan.window)
    found = [map_on(images[0], part, prepared.grid) for part in softmax(logits, axis=0)]
    return np.stack([sitk.GetArrayFromImage(part) for part in found]).astype(np.float16)


def main() -> None:
    """Store the maps of every case to train on that has none yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--stage")
    parser.add_argument("--role", default="teacher")
    parser.add_argument("--data", required=True, metavar="[DOMAIN=]DIR", help="the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for the maps")
    options = parser.parse_args()
    ((domain, path),) = read_domains([options.data]).items()
    net, facts = load_specialised(checkpoint_of(options.run, options.stage, options.role), domain)
    net.eval()
    plan, known = from_dict(Plan, facts["plan"]), set(facts["provenance"]["training_cases"])
    options.out.mkdir(parents=True, exist_ok=True)
    for case in read_dataset(path, domain=domain).cases:
        file = options.out / f"{case.id}.npy"
        if case.id in known and not file.is_file():
            with torch.inference_mode():
                found = probabilities(net, plan, case)
            unfinished = file.with_suffix(".part")
            with unfinished.open("wb") as stream:
                np.save(stream, found)
            unfinished.replace(file)


if __name__ == "__main__":
    main()
