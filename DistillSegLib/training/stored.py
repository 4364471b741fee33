"""A teacher that was run elsewhere: label maps or probabilities on disk, one file for each case.

A folder holds, by the cases' names (with or without nnU-Net's channel suffix "_0000"),

    case_00.nii.gz  .nrrd  .mha     whole numbers: a hard label map
    case_00.nii.gz  .nrrd  .mha     4-D, or several numbers a voxel: probabilities or logits
    case_00.npz                     "probabilities" (K, D, H, W), as nnU-Net's --save_probabilities
    case_00.npy                     (K, D, H, W)

They lie on the grid of the case's image, are brought to the plan's grid once, kept in the cache
beside the case, and cropped and augmented with the image. In the cache a case takes 2 K bytes a
voxel: half precision, so 5 classes of 100^3 voxels take 10 MB.

Files of numpy know no place in the patient: of them only the size can be checked.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import nn

from DistillSegLib.datasets import Case, stem
from DistillSegLib.distill.views import Batch, View
from DistillSegLib.errors import DatasetError, DistillSegError, RecipeError
from DistillSegLib.labels import LabelTable
from DistillSegLib.preprocessing import Preprocessing

if TYPE_CHECKING:
    import SimpleITK as sitk

ENDINGS = (
    ".npz",
    ".npy",
    ".nii.gz",
    ".nii",
    ".nrrd",
    ".mha",
)  # those of numpy first: they are soft
LEAST = 1e-6  # the least probability, of which a logarithm is taken; half precision still holds it
SUM = 0.02  # by which probabilities of a voxel may miss 1


class StoredTeacher(nn.Module):
    """What a stored teacher says of the batch: the logarithm of its probabilities.

    Args:
        folder: for messages.
    """

    def __init__(self, folder: str, role: str = "teacher"):
        super().__init__()
        self.folder, self.role = folder, role

    def forward(self, batch: Batch) -> View:
        if self.role not in batch.stored:
            raise RecipeError(
                f"'{self.role}' is a stored teacher, and the batch holds no map of it; prepare the "
                "data set anew."
            )
        return View(batch.stored[self.role].float().clamp(LEAST, 1).log())


@dataclass(frozen=True)
class Maps:
    """One folder of stored maps, as a recipe names it.

    Attributes:
        classes: which channel (of a label map: which value) is our class k; empty: as they are.
    """

    folder: str
    classes: tuple[int, ...] = ()
    smoothing: float = 0.05

    @property
    def key(self) -> str:
        """By which a cache knows it."""
        return f"{self.folder} {list(self.classes) or ''}".strip()

    def smoothed(self, maps: NDArray, hard: bool) -> NDArray[np.float32]:
        """(K, d, h, w) as they were cut out of the cached maps -> probabilities.

        What lies beyond the image is background; hard labels give away `smoothing` to all classes.
        """
        maps = np.clip(maps, 0, 1, dtype=np.float32)
        maps[0] += np.maximum(1 - maps.sum(axis=0), 0)
        if hard:
            maps = (1 - self.smoothing) * maps + self.smoothing / len(maps)
        return maps


def find_maps(maps: Maps, cases: Sequence[Case]) -> dict[str, Path]:
    """The file of each case. RecipeError says how many have none, and which is the first."""
    folder = Path(maps.folder)
    if not folder.is_dir():
        raise RecipeError(
            f"There is no folder '{maps.folder}' of stored maps; check the path, or train from the "
            "cache of a run that had it."
        )
    exact: dict[str, Path] = {}
    loose: dict[str, Path] = {}
    for ending in ENDINGS:
        for file in sorted(folder.glob(f"*{ending}")):
            exact.setdefault(stem(file), file)
            loose.setdefault(_without_channel(stem(file)), file)
    found = {}
    for case in cases:
        file = exact.get(case.id) or loose.get(case.id) or exact.get(_without_channel(case.id))
        if file:
            found[case.id] = file
    missing = [case.id for case in cases if case.id not in found]
    if missing:
        raise RecipeError(
            f"'{maps.folder}' lacks the maps of {len(missing)} of {len(cases)} cases, the first is "
            f"'{missing[0]}'; store one file for each case under its name, such as "
            f"{missing[0]}.nii.gz."
        )
    return found


def check_maps(maps: Maps, cases: Sequence[Case], labels: LabelTable) -> None:
    """Open every map before anything is computed. RecipeError for the first that does not fit."""
    by_id = {case.id: case for case in cases}
    shown = False
    for case_id, file in find_maps(maps, cases).items():
        _, images = _read(maps, by_id[case_id], file, labels)
        shown = shown or any(_array(image).any() for image in images[1:])
    if not shown:
        named = f"classes = {list(maps.classes)} names" if maps.classes else "label table has"
        raise RecipeError(
            f"None of the {len(cases)} maps in '{maps.folder}' shows a structure: all voxels are "
            f"background, or of values that are not those that {named}; say by classes = [0, …] "
            "which value is which of ours, or store maps that show something."
        )


def digest(maps: Maps, file: Path, labels: LabelTable) -> str:
    """Of all that decides what is cached of a file, apart from the preprocessing."""
    stamp = [file.name, file.stat().st_size, file.stat().st_mtime_ns]
    values = [label.value for label in labels]
    return hashlib.sha256(json.dumps([stamp, maps.classes, values]).encode()).hexdigest()[:12]


def prepare_maps(
    maps: Maps, case: Case, file: Path, labels: LabelTable, preprocessing: Preprocessing
) -> tuple[bool, NDArray[np.float16]]:
    """(whether they are hard labels, (K, D, H, W) probabilities on the plan's grid)."""
    hard, images = _read(maps, case, file, labels)
    return hard, np.stack([preprocessing.apply_map(i).astype(np.float16) for i in images])


def _read(maps: Maps, case: Case, file: Path, labels: LabelTable) -> tuple[bool, list[sitk.Image]]:
    """(whether it is a label map, an image of probabilities for each of our classes)."""
    from DistillSegLib.images import read_image

    where = f"Case '{case.id}', stored map '{file.name}'"
    reference = read_image(case.images[0])
    try:
        if file.suffix in (".npz", ".npy"):
            return False, _channels(maps, _numbers(file, reference), reference, labels)
        return _read_image(maps, file, reference, labels)
    except (DistillSegError, ValueError, OSError) as problem:
        raise RecipeError(f"{where}: {problem}") from problem


def _read_image(
    maps: Maps, file: Path, reference: sitk.Image, labels: LabelTable
) -> tuple[bool, list[sitk.Image]]:
    import SimpleITK as sitk

    from DistillSegLib.geometry import same_grid
    from DistillSegLib.headers import check_file
    from DistillSegLib.quiet import quiet

    check_file(file)
    try:
        with quiet():
            image = sitk.ReadImage(str(file))
    except RuntimeError as problem:
        raise DatasetError("it cannot be read; it is damaged or no image.") from problem
    soft = image.GetDimension() == 4 or image.GetNumberOfComponentsPerPixel() > 1
    first = image[:, :, :, 0] if image.GetDimension() == 4 else image
    if first.GetDimension() != 3 or not same_grid(first, reference):
        raise DatasetError(
            f"it lies on {_grid(first)}, the image on {_grid(reference)}; store it on the grid of "
            "the image."
        )
    values = sitk.GetArrayFromImage(image)
    if not soft:
        return True, _one_hot(maps, values, reference, labels)
    if image.GetDimension() == 3:
        values = np.moveaxis(values, -1, 0)  # (D, H, W, K) -> (K, D, H, W)
    return False, _channels(maps, values, reference, labels)


def _numbers(file: Path, reference: sitk.Image) -> NDArray:
    """(K, D, H, W) of a file of numpy."""
    try:
        with file.open("rb") as opened:
            found = np.load(opened, allow_pickle=False)
            if file.suffix == ".npz":
                if "probabilities" not in found:
                    raise DatasetError(
                        f"it holds {list(found)}, not 'probabilities'; store them under this name."
                    )
                found = found["probabilities"]
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as problem:
        raise DatasetError(
            f"it cannot be read ({problem}); it is damaged or holds no numbers. Store it again."
        ) from problem
    if found.dtype.kind not in "fiub":
        raise DatasetError(f"it holds {found.dtype}, not real numbers; store float32.")
    size = reference.GetSize()[::-1]
    if found.ndim != 4 or found.shape[1:] != size:
        raise DatasetError(
            f"it has the shape {found.shape}, the image has {size} voxels (z, y, x); store "
            "(K, z, y, x) on the grid of the image."
        )
    return found


def _one_hot(
    maps: Maps, values: NDArray, reference: sitk.Image, labels: LabelTable
) -> list[sitk.Image]:
    whole = np.rint(values).astype(np.int64)
    if not np.array_equal(whole, values):
        raise DatasetError("it holds fractions, so it is no label map; store (K, z, y, x) in 4-D.")
    if maps.classes:  # what the recipe does not name is background
        classes = np.zeros(whole.shape, np.int64)
        for index, value in enumerate(maps.classes):
            classes[whole == value] = index
    else:
        classes = labels.encode(whole)
    return [_image(classes == index, reference) for index in range(labels.classes)]


def _channels(
    maps: Maps, values: NDArray, reference: sitk.Image, labels: LabelTable
) -> list[sitk.Image]:
    order = maps.classes or range(labels.classes)
    if max(order) >= len(values) or (not maps.classes and len(values) != labels.classes):
        raise DatasetError(
            f"it has {len(values)} classes, the data set has {labels.classes} with the background; "
            "say by classes = [0, …] which of its channels is which of ours."
        )
    return [_image(each, reference) for each in _probabilities(values)[list(order)]]


def _probabilities(values: NDArray) -> NDArray[np.float32]:
    """Probabilities as they are; the softmax of logits, which are known by negative numbers."""
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise DatasetError("it holds numbers that are not finite.")
    if values.min() < 0:
        values = np.exp(values - values.max(axis=0))
        return values / values.sum(axis=0)
    total = values.sum(axis=0)
    if not np.allclose(total, 1, atol=SUM):
        raise DatasetError(
            f"its classes sum to {total.min():.3g} to {total.max():.3g} at a voxel, so they are no "
            "probabilities, and without negative numbers they are no logits either."
        )
    return values


def _array(image: sitk.Image) -> NDArray:
    import SimpleITK as sitk

    return sitk.GetArrayViewFromImage(image)


def _image(values: NDArray, reference: sitk.Image) -> sitk.Image:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.CopyInformation(reference)
    return image


def _grid(image: sitk.Image) -> str:
    from DistillSegLib.geometry import describe_grid

    if image.GetDimension() != 3:
        return f"{image.GetDimension()} dimensions"
    turned = "" if "oblique" not in (text := describe_grid(image)) else f" {image.GetDirection()}"
    return f"{text}{turned} at {tuple(round(x, 3) for x in image.GetOrigin())}"


def _without_channel(name: str) -> str:
    return re.sub(r"_\d{4}$", "", name)
