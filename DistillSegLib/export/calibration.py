"""The softmax temperature at which a network is as sure as it is right, for what a package shows.

Temperature scaling (Guo et al., ICML 2017, arXiv:1706.04599): one number T, that makes the labels
most likely,

    T = argmin of the mean of -log softmax(l / T)[label],

over the voxels that the network itself gives to a structure; no voxel is chosen by its label. (Over
those of network *or* label, all that the network calls background are wrong by choice: a perfectly
calibrated network has an expected error of 9 to 10 % there.)

Only training cases are used, so that the held-out ones can judge. A network is surer of images that
it has learnt from than of new ones, so the patches are varied as in training. What each would have
chosen, on the bundled hippocampus models (160 training cases, 40 held out):

    T                                    fast   reference   tiny
    training cases as they are           1.63   1.67        1.64
    patches of them, varied (this file)  1.73   1.83        1.78
    held-out cases (not used)            2.05   2.16        1.96

A part of the gap is closed; on new cases a network is still surer than right, by 3 to 5 points of
probability instead of 8 to 9.

**Differs from the paper**: it fits on a validation set of its own, which small data sets cannot
spare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from DistillSegLib.datasets import read_dataset
from DistillSegLib.errors import DatasetError, DistillSegError
from DistillSegLib.labels import LabelTable
from DistillSegLib.records import from_dict
from DistillSegLib.training.cache import INDEX, Cache, labelled, open_cache, prepare
from DistillSegLib.training.patches import PatchLoader
from DistillSegLib.training.plan import Plan
from DistillSegLib.training.recipe import AugmentationConfig

CASES = 64  # one patch of each
VOXELS = 2**13  # of each patch, at most
LEAST, MOST = 0.25, 8.0  # of the temperature
STEPS = 40  # of the bisection: far below what a reader can see
EPOCH = 10**6  # no training comes that far: its patches are new


@dataclass(frozen=True)
class Calibration:
    """What was found, and on what.

    Attributes:
        cases: training cases that the patches are of.
        confidence, right: mean probability of the chosen class, and the share that is right, of the
            voxels that the network gave to a structure; before: at temperature 1.
    """

    temperature: float
    cases: int
    confidence_before: float
    confidence: float
    right: float

    def sentence(self) -> str:
        """For the person who exports."""
        before, after, right = (
            f"{100 * share:.1f} %"
            for share in (self.confidence_before, self.confidence, self.right)
        )
        return (
            f"Probabilities are shown at a softmax temperature of {self.temperature:.2f}, fitted "
            f"to {self.cases} varied training cases: of the voxels given to a structure {right} "
            f"are right, the mean probability is {after} instead of {before}."
        )


def calibrate(net: nn.Module, cache: Cache, augmentation: AugmentationConfig) -> Calibration:
    """The temperature of a network by the cache's training cases.

    Args:
        net: in evaluation mode.

    Raises:
        DistillSegError: there are no such cases, or the network finds nothing in any.
    """
    if not cache.training_cases:
        raise DatasetError(f"The cache '{cache.root}' holds no training case; give the run's own.")
    logits, label, cases = [], [], 0
    for scores, classes in islice(_answers(net, cache, augmentation), CASES):
        logits.append(scores)
        label.append(classes)
        cases += 1
    logits, label = np.concatenate(logits, axis=1), np.concatenate(label)
    if not label.size:
        raise DistillSegError(
            f"The network found no structure in {cases} training cases; train it for longer."
        )
    found = fit_temperature(logits, label)
    return Calibration(
        temperature=round(found, 3),
        cases=cases,
        confidence_before=float(_softmax(logits, 1.0).max(axis=0).mean()),
        confidence=float(_softmax(logits, round(found, 3)).max(axis=0).mean()),
        right=float((logits.argmax(axis=0) == label).mean()),
    )


def fit_temperature(logits: NDArray[np.floating], label: NDArray[np.integer]) -> float:
    """The temperature at which the labels are most likely, between LEAST and MOST.

    With b = 1/T the mean of -log softmax(b l)[label] is convex, and its slope is the mean of
    E[l] - l[label] with E over softmax(b l): where that is zero is found by bisection.

    Args:
        logits: (K, n); label: (n,) classes.
    """
    right = logits[label, np.arange(label.size)].mean(dtype=np.float64)
    low, high = np.log(1 / MOST), np.log(1 / LEAST)
    for _ in range(STEPS):
        middle = (low + high) / 2
        expected = (_softmax(logits, np.exp(-middle)) * logits).sum(axis=0)
        if expected.mean(dtype=np.float64) < right:
            low = middle
        else:
            high = middle
    return float(np.exp(-(low + high) / 2))


def training_cache(
    folder: Path, plan: Plan, labels: LabelTable, provenance: Mapping[str, Any], work: Path
) -> Cache:
    """The cases of `folder` that a network was trained on: of a run's cache, or of a data set.

    Where labels were withheld from the training (`split.labelled`), they are withheld here too.

    Args:
        plan, labels, provenance: of the network's checkpoint.
        work: empty folder, where cases of a data set are preprocessed.

    Raises:
        DatasetError: none of the cases is there, or the cache was prepared for another plan.
    """
    trained = set(provenance.get("training_cases", ()))
    if (folder / INDEX).is_file():
        cache = open_cache(folder)
        if cache.plan.preprocessing != plan.preprocessing or len(cache.labels) != len(labels):
            raise DatasetError(
                f"The cache '{folder}' was prepared for another plan than the network's; give the "
                "cache that it was trained from, or the data set."
            )
        known = [case for case in cache.training_cases if case.id in trained]
        cases = _spread(_labelled(known, provenance))
        cache = replace(cache, cases=tuple(cases), held_out=())
    else:
        dataset = read_dataset(folder)
        known = [case for case in dataset.cases if case.id in trained]
        cases = _spread(_labelled(known, provenance))
        chosen = replace(dataset, cases=tuple(cases))
        cache = prepare(chosen, plan, (), labels, work) if cases else None
    if not cases:
        raise DatasetError(f"'{folder}' holds no case that the network was trained on.")
    return cache


def augmentation_of(recipe: Mapping[str, Any]) -> AugmentationConfig:
    """How a run varied its patches, from the recipe in its checkpoint."""
    return from_dict(AugmentationConfig, recipe.get("augmentation", {}))


def _labelled(cases: list, provenance: Mapping[str, Any]) -> list:
    """Those whose labels were learnt from."""
    split = provenance.get("split", {})
    return labelled(cases, split.get("labelled", 1.0), split.get("seed", 0))


def _spread(cases: list) -> list:
    """At most CASES of them, evenly."""
    return cases[:: max(-(-len(cases) // CASES), 1)]


def _answers(
    net: nn.Module, cache: Cache, augmentation: AugmentationConfig
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.integer]]]:
    """Of one varied patch after the other, (K, n) logits and (n,) classes of chosen voxels."""
    loader = PatchLoader(cache, augmentation, window=cache.plan.window, batch=1, seed=0, workers=0)
    for batch in loader.epoch(EPOCH):
        with torch.inference_mode():
            scores = net(batch.image).float()[0].flatten(1)
        chosen = torch.nonzero(scores.argmax(dim=0))[:, 0]
        chosen = chosen[:: max(-(-len(chosen) // VOXELS), 1)]
        yield scores[:, chosen].numpy(), batch.label.flatten()[chosen].numpy()


def _softmax(logits: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """(K, n) probabilities."""
    scaled = (logits - logits.max(axis=0)) / float(temperature)
    shares = np.exp(scaled.astype(np.float64))
    return shares / shares.sum(axis=0)
