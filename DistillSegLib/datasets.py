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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from DistillSegLib.errors import DatasetError, DistillSegError
from DistillSegLib.labels import LabelTable, label_table

# Endings of a time point or phase, which do not make another patient: SC-HF-I-01_ED, p7_t0.
_TIME_POINT = re.compile(r"_(?:ED|ES|(?:t|time|frame|phase|visit)\d+)$", re.IGNORECASE)
_ENDINGS = (".nii.gz", ".seg.nrrd", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")


def patient_of(case: str) -> str:
    """Who was examined, by the id of a case: without the ending of a time point or phase."""
    return _TIME_POINT.sub("", case)


@dataclass(frozen=True)
class Case:
    """One examination.

    Attributes:
        id: unique in its data set, and fit for a file name.
        images: one file per channel.
        label: the reference label map, or None where there is none.
        domain: such as "ct" or "mr", empty where there is only one.
        patient: who was examined; a split never divides a patient. By default what `patient_of`
            makes of the id; `dataset.json` may say otherwise under "patients".
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None
    domain: str = ""
    patient: str = ""

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", patient_of(self.id))


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

        Whole patients are dealt out. The result depends on the patients' names and the three
        numbers alone: not on the order of files, the platform or the Python version.
        """
        patients = sorted({case.patient for case in self.cases})
        if len(patients) == 1:
            raise DatasetError(
                f"Data set '{self.name}' has one patient only ('{patients[0]}'); a split into "
                "training and held-out cases needs two or more."
            )
        if not 2 <= folds <= len(patients):
            raise DatasetError(
                f"Data set '{self.name}' has {len(patients)} patients, which cannot make {folds} "
                f"folds; choose 2 to {len(patients)} (split.folds of a recipe)."
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
        DatasetError: what is named there is missing or contradicts itself, said in one sentence.
    """
    path = _dataset_file(Path(path))
    described = _read_json(path)
    if not isinstance(described, Mapping):
        raise DatasetError(
            f"'{path}' describes no data set; it must be a JSON object with the keys of the "
            "Medical Segmentation Decathlon or nnU-Net v2."
        )
    channels = _channels(described, path)
    layout = _nnunet_cases if "channel_names" in described else _msd_cases
    cases = [replace(case, domain=domain) for case in layout(described, path, len(channels))]
    cases = _of_patients(cases, described.get("patients", {}), path)
    _check_listing(cases, channels, path)
    return Dataset(
        name=str(described.get("name") or path.parent.resolve().name),
        cases=tuple(sorted(cases, key=lambda case: case.id)),
        labels=_labels(described.get("labels"), path),
        channels=channels,
        licence=str(described.get("licence") or described.get("license") or ""),
        reference=str(described.get("reference") or ""),
        folder=path.parent,
    )


def _of_patients(cases: list[Case], patients: Any, path: Path) -> list[Case]:
    """Cases of the same patient, where their ids do not tell: {"hippocampus_003": "2"}."""
    ids = {case.id for case in cases}
    if not isinstance(patients, Mapping) or not all(
        case in ids and isinstance(patient, str) and patient for case, patient in patients.items()
    ):
        raise DatasetError(
            f"'{path}': \"patients\" must give the name of the patient for ids of cases, such as "
            f'{{"{min(ids, default="case")}": "patient 1"}}; correct it or leave it out.'
        )
    return [replace(case, patient=patients.get(case.id, case.patient)) for case in cases]


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
                f"Case '{case.id}': the label map '{case.label.name}' ({describe_grid(label)}) "
                f"does not lie on the grid of the image '{case.images[0].name}' "
                f"({describe_grid(first)}); replace it or leave the case out."
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
            f"'{path}' holds no dataset.json, which names the cases and labels in the layout of "
            f"the Medical Segmentation Decathlon or nnU-Net v2.{hint}"
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
    if isinstance(described, str):  # the name of a JSON file beside
        path = path.parent / described
        described = _read_json(path)
    if not isinstance(described, Mapping):
        raise DatasetError(f'\'{path}\' names no labels; add "labels": {{"1": "Liver"}}.')
    names: dict[int, str] = {}
    for key, value in described.items():
        # the Decathlon writes {"1": "Liver"}, nnU-Net v2 {"Liver": 1}
        number, name = (key, value) if isinstance(value, str) else (value, key)
        if isinstance(number, list):
            raise DatasetError(
                f"'{path}': label '{name}' is a region of several values ({number}), which is not "
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
                f"'{path}': label '{name}' has the value {number!r}, which is not a number."
            ) from None
        if number in names:
            raise DatasetError(
                f"'{path}': '{names[number]}' and '{name}' share the label value {number}."
            )
        names[number] = name
    if not any(names):
        raise DatasetError(f"'{path}' names no label but the background; add the structures.")
    try:
        return label_table(names)
    except ValueError as problem:
        raise DatasetError(f"'{path}': {problem}") from problem


def _msd_cases(described: Mapping[str, Any], path: Path, channels: int) -> Iterator[Case]:
    listed = described.get("training")
    if not isinstance(listed, list) or not listed:
        raise DatasetError(
            f'\'{path}\' lists no training cases; add "training": [{{"image": …, "label": …}}].'
        )
    for number, entry in enumerate(listed):
        images = entry.get("image") if isinstance(entry, Mapping) else None
        images = images if isinstance(images, list) else [images]
        yield _listed_case(entry, images, path, f"training[{number}]")


def _nnunet_cases(described: Mapping[str, Any], path: Path, channels: int) -> Iterator[Case]:
    listed = described.get("dataset")
    if isinstance(listed, Mapping):  # newer files may name every file
        for name, entry in listed.items():
            images = entry.get("images") if isinstance(entry, Mapping) else None
            yield _listed_case(entry, images, path, f"dataset['{name}']", name=name)
        return
    ending = str(described.get("file_ending", ".nii.gz"))
    images, labels = path.parent / "imagesTr", path.parent / "labelsTr"
    names = {_name(file, ending) for file in labels.glob(f"*{ending}")}
    names |= {re.sub(r"_\d{4}$", "", _name(file, ending)) for file in images.glob(f"*{ending}")}
    for name in names:
        if not name.startswith("."):  # macOS leaves "._case" beside each file
            files = tuple(images / f"{name}_{channel:04d}{ending}" for channel in range(channels))
            yield Case(name, files, labels / f"{name}{ending}")


def _name(file: Path, ending: str) -> str:
    return file.name[: len(file.name) - len(ending)]


def _listed_case(entry: Any, images: Any, path: Path, where: str, *, name: str = "") -> Case:
    if not isinstance(images, list) or not images or not all(isinstance(i, str) for i in images):
        raise DatasetError(f"'{path}': {where} names no image; found {entry!r}.")
    if not isinstance(entry.get("label"), str):
        raise DatasetError(
            f"'{path}': {where} ('{images[0]}') names no label map; add it or remove the case."
        )
    return Case(
        id=name or str(entry.get("id") or re.sub(r"_0000$", "", stem(images[0]))),
        images=tuple(path.parent / file for file in images),
        label=path.parent / entry["label"],
        patient=str(entry.get("patient") or ""),
    )


def _check_listing(cases: Sequence[Case], channels: tuple[str, ...], path: Path) -> None:
    """Refuse, before any work, cases that cannot be told apart or whose files are missing."""
    if not cases:
        raise DatasetError(f"'{path}': there are no cases in imagesTr and labelsTr; add some.")
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise DatasetError(f"'{path}' has two cases '{case.id}'; give each its own \"id\".")
        seen.add(case.id)
        if case.id in ("", ".", "..") or "/" in case.id or "\\" in case.id:
            raise DatasetError(
                f"'{path}': the case id '{case.id}' cannot be a file name; rename it."
            )
        if len(case.images) != len(channels):
            raise DatasetError(
                f"'{path}': case '{case.id}' has {len(case.images)} image files for "
                f"{len(channels)} channels ({', '.join(channels)}); give one 3-D file per channel "
                "(a 4-D file must be divided first)."
            )
    for kind, files in (
        ("image", [file for case in cases for file in case.images]),
        ("label map", [case.label for case in cases if case.label]),
    ):
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise DatasetError(
                f"'{path}': {len(missing)} of {len(files)} {kind}s are missing, the first is "
                f"'{missing[0]}'; add the files or remove the cases."
            )
