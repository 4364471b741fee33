"""Cases preprocessed once, as memory-mapped arrays, by the very preprocessing that inference uses.

A cache can be carried to another machine and trained from there without SimpleITK and without the
data set:

    cache/
      cache.json            plan, label table, where the data came from, the cases
      <digest>/image.npy    (C, D, H, W) float32
      <digest>/label.npy    (D, H, W) class indices
      <digest>/hard-….npy   (K, D, H, W) float16, a stored teacher's labels; or soft-…
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from DistillSegLib.datasets import Case, Dataset
from DistillSegLib.errors import DatasetError, RecipeError
from DistillSegLib.files import replacing, write_text
from DistillSegLib.labels import LabelTable
from DistillSegLib.preprocessing import Preprocessing
from DistillSegLib.records import from_dict, to_dict
from DistillSegLib.training.plan import Plan
from DistillSegLib.training.stored import Maps, digest, find_maps, prepare_maps
from DistillSegLib.windows import ignore

INDEX = "cache.json"


@dataclass(frozen=True)
class CachedCase:
    """One preprocessed case.

    Attributes:
        folder: relative to the cache.
        stored: `Maps.key` of a stored teacher -> file in the folder.
    """

    id: str
    patient: str
    domain: str
    folder: str
    stored: Mapping[str, str] = field(default_factory=dict)


AnyCase = TypeVar("AnyCase", Case, CachedCase)


@dataclass(frozen=True)
class Source:
    """Where a cache's cases came from, for model cards."""

    name: str
    licence: str = ""
    reference: str = ""


@dataclass(frozen=True)
class Cache:
    """Preprocessed cases of a data set, on disk.

    Attributes:
        held_out: ids of the cases that no training may see.
    """

    plan: Plan
    labels: LabelTable
    cases: tuple[CachedCase, ...]
    held_out: tuple[str, ...]
    source: Source
    root: str = field(default="", compare=False)

    def image(self, case: CachedCase) -> NDArray[np.float32]:
        """(C, D, H, W), memory-mapped."""
        return np.load(Path(self.root) / case.folder / "image.npy", mmap_mode="r")

    def label(self, case: CachedCase) -> NDArray[np.integer]:
        """(D, H, W) class indices 0 … K-1, memory-mapped."""
        return np.load(Path(self.root) / case.folder / "label.npy", mmap_mode="r")

    def maps(self, case: CachedCase, maps: Maps) -> tuple[bool, NDArray[np.float16]]:
        """(whether they are hard labels, (K, D, H, W) memory-mapped). RecipeError if not there."""
        if maps.key not in case.stored:
            raise RecipeError(
                f"The cache '{self.root}' holds no maps of '{maps.folder}' for case '{case.id}'; "
                "prepare the data set anew with this recipe."
            )
        name = case.stored[maps.key]
        return name.startswith("hard"), np.load(Path(self.root) / case.folder / name, mmap_mode="r")

    @property
    def training_cases(self) -> tuple[CachedCase, ...]:
        return tuple(case for case in self.cases if case.id not in self.held_out)

    def labelled_cases(self, share: float, seed: int) -> tuple[CachedCase, ...]:
        """The training cases of a share of the patients, rounded up; smaller ones lie in larger."""
        return tuple(labelled(self.training_cases, share, seed))

    @property
    def held_out_cases(self) -> tuple[CachedCase, ...]:
        return tuple(case for case in self.cases if case.id in self.held_out)


def labelled(cases: Sequence[AnyCase], share: float, seed: int) -> list[AnyCase]:
    """Of training cases those of a share of the patients, as `Cache.labelled_cases`."""
    patients = sorted({case.patient for case in cases})
    random.Random(seed).shuffle(patients)
    chosen = set(patients[: math.ceil(share * len(patients) - 1e-9)])
    return [case for case in cases if case.patient in chosen]


def check_cases(dataset: Dataset, *, on_progress: Callable[[float], None] = ignore) -> None:
    """Open every case before anything is computed.

    Raises:
        DatasetError: how many cases cannot be trained on, and the first one in words.
    """
    from DistillSegLib.datasets import check_case  # needs SimpleITK, which opening a cache does not

    problems = []
    for number, case in enumerate(dataset.cases):
        if problem := check_case(case, dataset.labels):
            problems.append(problem)
        on_progress((number + 1) / len(dataset.cases))
    if problems:
        raise DatasetError(f"{len(problems)} case(s) cannot be trained on. {problems[0]}")


def prepare(
    dataset: Dataset,
    plan: Plan,
    held_out: Sequence[Case],
    labels: LabelTable,
    folder: Path,
    *,
    stored: Sequence[Maps] = (),
    on_progress: Callable[[float], None] = ignore,
) -> Cache:
    """Preprocess the cases that are not there yet, and write the cache's index.

    Args:
        stored: maps of teachers that were run elsewhere, for the cases to train on.
    """
    cases = []
    out = {case.id for case in held_out}
    training = [case for case in dataset.cases if case.id not in out]
    found = {maps.key: find_maps(maps, training) for maps in stored}
    for number, case in enumerate(dataset.cases):
        place = folder / _digest(case, plan.preprocessing, dataset.labels)
        if not (place / "label.npy").is_file():
            _prepare_case(case, plan.preprocessing, dataset.labels, place)
        files = {
            maps.key: _prepare_maps(
                maps, case, found[maps.key][case.id], dataset.labels, plan, place
            )
            for maps in stored
            if case.id not in out
        }
        cases.append(CachedCase(case.id, case.patient, case.domain, place.name, files))
        on_progress((number + 1) / len(dataset.cases))
    cache = Cache(
        plan=plan,
        labels=labels,
        cases=tuple(cases),
        held_out=tuple(case.id for case in held_out),
        source=Source(dataset.name, dataset.licence, dataset.reference),
    )
    write_text(folder / INDEX, json.dumps(to_dict(cache), indent=1))
    return open_cache(folder)


def open_cache(folder: Path) -> Cache:
    """The cache in a folder. DatasetError if there is none, or a case is absent or damaged."""
    try:
        data = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise DatasetError(f"'{folder}' holds no readable {INDEX} ({problem}).") from problem
    cache = replace(from_dict(Cache, data, error=DatasetError), root=str(folder))
    for case in cache.cases:
        try:
            shape = cache.label(case).shape  # maps, reads no voxels
            beside = [
                np.load(folder / case.folder / f, mmap_mode="r") for f in case.stored.values()
            ]
            whole = all(each.shape[1:] == shape for each in (cache.image(case), *beside))
        except (OSError, ValueError):
            whole = False
        if not whole:
            raise DatasetError(
                f"The cache '{folder}' lacks case '{case.id}' or holds a part of it; copy the "
                f"folder '{case.folder}' again or prepare the cache anew."
            )
    return cache


def _digest(case: Case, preprocessing: Preprocessing, labels: LabelTable) -> str:
    files = [*case.images, case.label]
    stamp = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file]
    values = [label.value for label in labels]
    text = json.dumps([case.id, stamp, values, to_dict(preprocessing)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _prepare_case(
    case: Case, preprocessing: Preprocessing, labels: LabelTable, place: Path
) -> None:
    from DistillSegLib.images import read_image
    from DistillSegLib.segmentations import read_segmentation

    image = preprocessing.apply([read_image(file) for file in case.images]).array
    label = labels.encode(preprocessing.apply_label(read_segmentation(case.label, labels).image))
    for name, array in {"image.npy": image, "label.npy": label}.items():  # the label marks done
        _save(place / name, array)


def _prepare_maps(
    maps: Maps, case: Case, file: Path, labels: LabelTable, plan: Plan, place: Path
) -> str:
    """The name of the file with a stored teacher's maps of the case, made if it is not there."""
    ending = f"{digest(maps, file, labels)}.npy"
    for there in place.glob(f"*-{ending}"):
        return there.name
    hard, probabilities = prepare_maps(maps, case, file, labels, plan.preprocessing)
    name = f"{'hard' if hard else 'soft'}-{ending}"
    _save(place / name, probabilities)
    return name


def _save(path: Path, array: NDArray) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, array, allow_pickle=False)
