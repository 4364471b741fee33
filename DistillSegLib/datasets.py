"""Data sets as they are found: Medical Segmentation Decathlon and nnU-Net v2 folders.

Both are told apart by their `dataset.json`. Reading one opens no image, so a folder of thousands of
cases is listed at once; `check_case` opens a case and says what is wrong with it.

    >>> dataset = read_dataset("Task04_Hippocampus")
    >>> train, held_out = dataset.split(folds=5, fold=0, seed=0)
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from DistillSegLib.errors import DatasetError, DistillSegError
from DistillSegLib.labels import LabelTable, label_table

# Endings of a time point or phase, which do not make another patient: SC-HF-I-01_ED, p7_t0, a_frame12.
_TIME_POINT = re.compile(r"_(?:ED|ES|(?:t|time|frame|phase|visit)\d+)$", re.IGNORECASE)
_ENDINGS = (".nii.gz", ".seg.nrrd", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")


@dataclass(frozen=True)
class Case:
    """One examination.

    Attributes:
        id: unique in its data set, and fit for a file name.
        images: one file per channel.
        label: the reference label map, or None where there is none.
        domain: such as "ct" or "mr", empty where there is only one.
        patient: who was examined; a split never divides a patient.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None
    domain: str = ""
    patient: str = ""

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", _TIME_POINT.sub("", self.id))


@dataclass(frozen=True)
class Dataset:
    """Cases with one label table, and where they come from.

    Attributes:
        channels: what each image of a case is, such as ("MRI",) or ("T1", "FLAIR").
        licence, reference: as the data set states them, for model cards; empty if it does not.
        folder: where its `dataset.json` lies.
    """

    name: str
    cases: tuple[Case, ...]
    labels: LabelTable
    channels: tuple[str, ...]
    licence: str
    reference: str
    folder: Path

    def split(
        self, folds: int = 5, fold: int = 0, seed: int = 0
    ) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
        """(cases to train on, cases held out) of one fold of a cross-validation.

        Whole patients are dealt out. The result depends on the patients' names and the three numbers
        alone: not on the order of files, the platform or the Python version.
        """
        patients = sorted({case.patient for case in self.cases})
        if not 2 <= folds <= len(patients):
            raise DatasetError(
                f"Data set '{self.name}' has {len(patients)} patients, which cannot make {folds} "
                f"folds; choose 2 to {len(patients)}."
            )
        if not 0 <= fold < folds:
            raise DatasetError(
                f"Fold {fold} does not exist among {folds}; choose 0 to {folds - 1}."
            )
        random.Random(seed).shuffle(patients)
        held_out = set(patients[fold::folds])
        return (
            tuple(case for case in self.cases if case.patient not in held_out),
            tuple(case for case in self.cases if case.patient in held_out),
        )


def read_dataset(path: Path | str, *, domain: str = "") -> Dataset:
    """The training cases of a data set, sorted by id.

    Args:
        path: the folder that holds `dataset.json`, or a JSON file of that form under any name.
        domain: given to every case.

    Raises:
        DatasetError: something named there is missing or contradicts itself; one sentence says what.
    """
    path = _dataset_file(Path(path))
    described = _read_json(path)
    if not isinstance(described, Mapping):
        raise DatasetError(
            f"'{path}' describes no data set: it holds a {type(described).__name__}, not an object."
        )
    nnunet = "channel_names" in described
    channels = _channels(described, path)
    entries = (
        _nnunet_entries(described, path, len(channels)) if nnunet else _msd_entries(described, path)
    )
    return Dataset(
        name=str(described.get("name") or path.parent.resolve().name),
        cases=_cases(entries, channels, domain, path),
        labels=_labels(described.get("labels"), path),
        channels=channels,
        licence=str(described.get("licence") or described.get("license") or ""),
        reference=str(described.get("reference") or ""),
        folder=path.parent,
    )


def check_case(case: Case, labels: LabelTable) -> str:
    """Open a case and say in one sentence what is wrong with it; an empty text if nothing is.

    Found here: unreadable files, channels or a label on another grid than the first image (such as
    the label map of another patient), and label values that the table does not know.
    """
    # SimpleITK only here: training runs from its cache where only torch and numpy are installed.
    import SimpleITK as sitk

    from DistillSegLib.geometry import describe_grid, same_grid
    from DistillSegLib.images import read_image
    from DistillSegLib.segmentations import read_segmentation

    if case.label is None:
        return f"Case '{case.id}' has no label map; add one or leave the case out."
    try:
        first = read_image(case.images[0])
        for file in case.images[1:]:
            read_image(file)  # channels may differ in grid: they are resampled in physical space
        label = read_segmentation(case.label, labels).image
        if not same_grid(first, label):
            return (
                f"Case '{case.id}': the label map '{case.label.name}' ({describe_grid(label)}) does not "
                f"lie on the grid of the image '{case.images[0].name}' ({describe_grid(first)}); it "
                "belongs to another image or was resampled. Replace it or leave the case out."
            )
        labels.encode(sitk.GetArrayFromImage(label))
    except DistillSegError as problem:
        return f"Case '{case.id}': {problem}"
    except ValueError as problem:
        return f"Case '{case.id}', '{case.label.name}': {problem}"
    return ""


def stem(path: Path | str) -> str:
    """The file's name without its ending, of which ".nii.gz" and ".seg.nrrd" are one."""
    name = Path(path).name
    ending = next((e for e in _ENDINGS if name.lower().endswith(e)), Path(name).suffix)
    return name[: len(name) - len(ending)]


@dataclass(frozen=True)
class _Entry:
    """A case as its data set lists it."""

    id: str
    patient: str
    images: tuple[Path, ...]
    label: Path


def _dataset_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise DatasetError(f"There is no data set at '{path}'; give a folder with a dataset.json.")
    file = path / "dataset.json"
    if not file.is_file():
        inside = sorted(p.parent.relative_to(path).as_posix() for p in path.glob("*/dataset.json"))
        hint = f" There is one in: {', '.join(inside)}." if inside else ""
        raise DatasetError(
            f"'{path}' holds no dataset.json, which names the cases and labels in the layout of the "
            f"Medical Segmentation Decathlon or nnU-Net v2.{hint}"
        )
    return file


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as problem:
        raise DatasetError(
            f"'{path}' could not be read ({problem.strerror or problem})."
        ) from problem
    except ValueError as problem:  # JSONDecodeError, UnicodeDecodeError
        raise DatasetError(f"'{path}' is not valid JSON ({problem}); repair it.") from problem


def _channels(described: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    named = described.get("channel_names", described.get("modality"))
    if isinstance(named, str):
        return (named,)
    if isinstance(named, Mapping) and named:
        try:
            keys = sorted(named, key=int)
        except ValueError:
            raise DatasetError(
                f"'{path}': the channels must be numbered 0, 1, …, found {list(named)}."
            ) from None
        return tuple(str(named[key]) for key in keys)
    raise DatasetError(
        f'\'{path}\' does not say what its images are; add "modality": {{"0": "MRI"}} '
        '(Decathlon) or "channel_names" (nnU-Net v2).'
    )


def _labels(described: Any, path: Path) -> LabelTable:
    if isinstance(described, str):
        return _labels(_read_json(path.parent / described), path.parent / described)
    if not isinstance(described, Mapping) or not described:
        raise DatasetError(f'\'{path}\' names no labels; add "labels": {{"1": "Liver"}}.')
    names: dict[int, str] = {}
    for key, value in described.items():
        # nnU-Net v2 writes {"Liver": 1}, the Decathlon {"1": "Liver"}
        number, name = (value, key) if not isinstance(value, str) else (key, value)
        if isinstance(number, (list, tuple)):
            raise DatasetError(
                f"'{path}': label '{name}' is a region of several values ({list(number)}), which is not "
                "supported; write label maps with one value per structure."
            )
        if name == "ignore":
            raise DatasetError(
                f"'{path}' has an 'ignore' label, which is not supported; remove it."
            )
        try:
            number = int(number)
        except (TypeError, ValueError):
            raise DatasetError(
                f"'{path}': label '{name}' has the value {number!r}, not a number."
            ) from None
        if number in names:
            raise DatasetError(
                f"'{path}': '{names[number]}' and '{name}' share the label value {number}."
            )
        names[number] = str(name)
    try:
        return label_table(names)
    except ValueError as problem:
        raise DatasetError(f"'{path}': {problem}") from problem


def _msd_entries(described: Mapping[str, Any], path: Path) -> Iterator[_Entry]:
    listed = described.get("training")
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise DatasetError(
            f'\'{path}\' lists no training cases; add "training": [{{"image": …, "label": …}}].'
        )
    for number, entry in enumerate(listed):
        if not isinstance(entry, Mapping) or not entry.get("image"):
            raise DatasetError(f"'{path}': training[{number}] names no image; found {entry!r}.")
        images = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
        if not entry.get("label"):
            raise DatasetError(
                f"'{path}': training[{number}] ('{images[0]}') names no label map; add it or remove the case."
            )
        name = str(entry.get("id") or re.sub(r"_0000$", "", stem(images[0])))
        yield _Entry(
            id=name,
            patient=str(entry.get("patient") or ""),
            images=tuple(path.parent / file for file in images),
            label=path.parent / entry["label"],
        )


def _nnunet_entries(described: Mapping[str, Any], path: Path, channels: int) -> Iterator[_Entry]:
    listed = described.get("dataset")  # newer files may name every file, keyed by case
    if isinstance(listed, Mapping):
        for name, entry in listed.items():
            images = tuple(path.parent / file for file in entry["images"])
            yield _Entry(
                name, str(entry.get("patient") or ""), images, path.parent / entry["label"]
            )
        return
    ending = str(described.get("file_ending", ".nii.gz"))
    files = [
        file
        for folder in ("imagesTr", "labelsTr")
        for file in (path.parent / folder).glob(f"*{ending}")
        if not file.name.startswith(".")  # macOS leaves "._case" beside each file
    ]
    names = {file.name[: -len(ending)] for file in files if file.parent.name == "labelsTr"}
    names |= {
        re.sub(r"_\d{4}$", "", file.name[: -len(ending)])
        for file in files
        if file.parent.name == "imagesTr"
    }
    for name in names:
        yield _Entry(
            id=name,
            patient="",
            images=tuple(
                path.parent / "imagesTr" / f"{name}_{c:04d}{ending}" for c in range(channels)
            ),
            label=path.parent / "labelsTr" / f"{name}{ending}",
        )


def _cases(
    entries: Iterator[_Entry], channels: tuple[str, ...], domain: str, path: Path
) -> tuple[Case, ...]:
    cases: dict[str, Case] = {}
    missing: dict[str, list[Path]] = defaultdict(list)
    for entry in entries:
        if entry.id in cases:
            raise DatasetError(f"'{path}' has two cases '{entry.id}'; give each its own \"id\".")
        if not entry.id or entry.id != Path(entry.id).name or "\\" in entry.id:
            raise DatasetError(
                f"'{path}': the case id '{entry.id}' cannot be a file name; rename it."
            )
        if len(entry.images) != len(channels):
            raise DatasetError(
                f"'{path}': case '{entry.id}' has {len(entry.images)} image files for {len(channels)} channels "
                f"({', '.join(channels)}); give one 3-D file per channel (a 4-D file must be divided first)."
            )
        missing["image"] += [file for file in entry.images if not file.is_file()]
        missing["label map"] += [entry.label] if not entry.label.is_file() else []
        cases[entry.id] = Case(entry.id, entry.images, entry.label, domain, entry.patient)
    for kind, files in missing.items():
        if files:
            raise DatasetError(
                f"'{path}': {len(files)} of {len(cases)} cases lack their {kind}, the first is "
                f"'{files[0]}'; add the files or remove the cases."
            )
    if not cases:
        raise DatasetError(f"'{path}': no cases found in imagesTr and labelsTr.")
    return tuple(cases[name] for name in sorted(cases))
