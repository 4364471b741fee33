"""Store what a trained network says of a data set, so that students need not run it.

    python Testing/studies/store_maps.py run --stage teacher --data LeftVentricle --out maps
    python Testing/studies/store_maps.py left-ventricle-reference --data LeftVentricle --out maps

writes `maps/<case>.npy`, probabilities (K, D, H, W) on the grid of the case's image, for all cases
that the network was trained on. A recipe takes them as `frozen.teacher = { stored = "maps" }`; they
are turned and cropped with the image, and cost a step hardly more than a label does.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from DistillSegLib.commands.train import read_domains
from DistillSegLib.datasets import Case, read_dataset
from DistillSegLib.files import replacing
from DistillSegLib.images import read_image
from DistillSegLib.preprocessing import Preprocessing
from DistillSegLib.records import from_dict
from DistillSegLib.training.checkpoints import load_specialised
from DistillSegLib.training.folder import checkpoint_of
from DistillSegLib.training.packaged import open_package, rebuild
from DistillSegLib.training.plan import Plan
from DistillSegLib.training.validation import torch_predictor, volume_logits
from DistillSegLib.upsampling import map_on


@dataclass(frozen=True)
class Trained:
    """A trained network, and what it was trained on.

    Attributes:
        window: (z, y, x) voxels of its patches.
        cases: to train on.
    """

    net: nn.Module
    preprocessing: Preprocessing
    window: tuple[int, int, int]
    cases: frozenset[str]


def of_run(run: Path, stage: str | None, role: str, domain: str) -> Trained:
    """The network of a run's stage."""
    net, facts = load_specialised(checkpoint_of(run, stage, role), domain)
    plan = from_dict(Plan, facts["plan"])
    cases = frozenset(facts["provenance"]["training_cases"])
    return Trained(net.eval(), plan.preprocessing, plan.window, cases)


def of_package(name: str) -> Trained:
    """The network of a model package."""
    package = open_package(name)
    manifest = package.manifest
    net, _ = rebuild(package)
    cases = frozenset(manifest.provenance["training_cases"])
    return Trained(net, manifest.preprocessing, manifest.window, cases)


def probabilities(trained: Trained, case: Case) -> NDArray[np.float16]:
    """(K, D, H, W) on the grid of the case's image; between the network's voxels linearly."""
    images = [read_image(path) for path in case.images]
    prepared = trained.preprocessing.apply(images)
    predict = torch_predictor(trained.net)
    logits = volume_logits(trained.net, prepared.array, predict, trained.window)
    found = [map_on(images[0], part, prepared.grid) for part in softmax(logits, axis=0)]
    return np.stack([sitk.GetArrayFromImage(part) for part in found]).astype(np.float16)


def store(found: NDArray[np.float16], file: Path) -> None:
    """Write (K, D, H, W), whole or not at all, even where two processes store the same case."""
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.save(stream, found)


def main() -> None:
    """Store the maps of every case to train on that has none yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="folder of a run, or a package by its id or file")
    parser.add_argument("--stage")
    parser.add_argument("--role", default="teacher")
    parser.add_argument("--data", required=True, metavar="[DOMAIN=]DIR", help="the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for the maps")
    options = parser.parse_args()
    ((domain, path),) = read_domains([options.data]).items()
    run = Path(options.run)
    if run.is_dir():
        trained = of_run(run, options.stage, options.role, domain)
    else:
        trained = of_package(options.run)
    options.out.mkdir(parents=True, exist_ok=True)
    for case in read_dataset(path, domain=domain).cases:
        file = options.out / f"{case.id}.npy"
        if case.id in trained.cases and not file.is_file():
            with torch.inference_mode():
                found = probabilities(trained, case)
            store(found, file)


if __name__ == "__main__":
    main()
