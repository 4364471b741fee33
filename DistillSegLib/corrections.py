"""What a reader corrected, kept as a data set to train with.

The folder is a data set in nnU-Net's layout, which `distillseg train` and nnU-Net read: the
images, the corrected label maps with the model's own values, and for each pair a record of the
model that was corrected and of what changed. File names come from the voxels and name no patient.

    >>> save_correction("corrections", [image], corrected, raw, load_package("hippocampus-fast"))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from DistillSegLib import __version__
from DistillSegLib.comparison import Comparison, compare
from DistillSegLib.errors import DatasetError
from DistillSegLib.files import write_text
from DistillSegLib.geometry import on_grid_of, same_grid, voxel_ml
from DistillSegLib.images import write_image
from DistillSegLib.labels import LabelTable
from DistillSegLib.manifest import Manifest
from DistillSegLib.matching import match
from DistillSegLib.package import ModelPackage
from DistillSegLib.segmentations import Segmentation, write_segmentation

ENDING = ".nii.gz"
RECORDS = "corrections"
OURS = "distillseg"  # the key that tells our data sets from those of others


@dataclass(frozen=True)
class Correction:
    """One pair that was saved.

    Attributes:
        case: its id in the data set; the same image has the same.
        images, label, record: the files.
        comparison: of the model's output (A) and the corrected segmentation (B).
        left_out: segments that the model has no structure for; they are not part of the pair.
        cases: how many the data set has now.
    """

    case: str
    images: tuple[Path, ...]
    label: Path
    record: Path
    comparison: Comparison
    left_out: tuple[str, ...]
    cases: int


def save_correction(
    folder: Path | str,
    images: Sequence[sitk.Image],
    corrected: Segmentation,
    raw: Segmentation,
    package: ModelPackage,
) -> Correction:
    """Add a corrected segmentation to a data set of corrections; the same image replaces its own.

    Args:
        folder: of the data set; it is made where there is none.
        images: one per channel; the label map lies on the grid of the first.
        corrected: what the reader made of it; its segments are matched to the model's structures
            by terminology and name.
        raw: what the model gave.
        package: the model.

    Raises:
        DatasetError: the folder holds another data set.
        ImageError: it cannot be written.
    """
    folder, manifest = Path(folder), package.manifest
    described = _described(folder / "dataset.json", manifest)
    target, left_out = relabelled(corrected, manifest.labels, images[0])
    before, _ = relabelled(raw, manifest.labels, images[0])
    found = compare(replace(before, source="the model's output"), target)
    case = case_id(images)
    files = [Path("imagesTr", f"{case}_{number:04d}{ENDING}") for number in range(len(images))]
    label, record = Path("labelsTr", case + ENDING), folder / RECORDS / f"{case}.json"
    for image, file in zip(images, files):
        write_image(image, folder / file)
    write_segmentation(target, folder / label)
    write_text(record, _json(_record(case, package, found, left_out)))
    described["dataset"][case] = {
        "images": [file.as_posix() for file in files],
        "label": label.as_posix(),
    }
    described["numTraining"] = len(described["dataset"])
    write_text(folder / "dataset.json", _json(described))  # last: it names nothing that is missing
    return Correction(
        case,
        tuple(folder / file for file in files),
        folder / label,
        record,
        found,
        left_out,
        len(described["dataset"]),
    )


def relabelled(
    segmentation: Segmentation, labels: LabelTable, image: sitk.Image
) -> tuple[Segmentation, tuple[str, ...]]:
    """A segmentation with the values of a label table, on an image's grid; and what has no value.

    Structures are matched by terminology, then by name. A value that only happens to be the same
    proves nothing and matches nothing.
    """
    theirs_here = segmentation.image
    if not same_grid(theirs_here, image):
        theirs_here = on_grid_of(theirs_here, image, linear=False)
    voxels = sitk.GetArrayFromImage(theirs_here)
    values, left_out = np.zeros(int(voxels.max()) + 1, labels.dtype), []
    for theirs, ours, matched_by in match(segmentation.labels, labels):
        if theirs is None or theirs.value >= len(values):
            continue
        if ours is None or matched_by == "value":
            left_out.append(theirs.name)
        else:
            values[theirs.value] = ours.value
    result = sitk.GetImageFromArray(values[voxels])
    result.CopyInformation(image)
    return Segmentation(result, labels, source="the corrected segmentation"), tuple(left_out)


def case_id(images: Sequence[sitk.Image]) -> str:
    """A name from voxels and geometry: equal for equal images, and it tells nobody who it is."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(sitk.GetArrayFromImage(image).tobytes())
        digest.update(repr((image.GetSize(), image.GetSpacing(), image.GetOrigin())).encode())
    return f"case-{digest.hexdigest()[:12]}"


def _described(path: Path, manifest: Manifest) -> dict[str, Any]:
    """The data set's description, as it is or new; DatasetError where it is somebody else's."""
    fresh = {
        "name": f"Corrections of {manifest.id}",
        "channel_names": {str(n): name for n, name in enumerate(manifest.channels)},
        "labels": {"background": 0, **{label.name: label.value for label in manifest.labels}},
        "file_ending": ENDING,
        "numTraining": 0,
        OURS: {"corrections_of": manifest.id},
        "dataset": {},
    }
    if not path.exists():
        return fresh
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise DatasetError(
            f"'{path}' could not be read ({problem}); choose another folder for corrections."
        ) from problem
    if not isinstance(described, dict) or OURS not in described:
        raise DatasetError(
            f"'{path.parent}' holds a data set that was not made of corrections; choose another "
            "folder."
        )
    if any(described.get(key) != fresh[key] for key in ("channel_names", "labels")):
        raise DatasetError(
            f"'{path.parent}' holds corrections of '{described[OURS].get('corrections_of')}' with "
            f"other channels or labels than '{manifest.id}'; choose another folder."
        )
    return described


def _record(
    case: str, package: ModelPackage, found: Comparison, left_out: Sequence[str]
) -> dict[str, Any]:
    before, after = (sitk.GetArrayViewFromImage(each.image) for each in (found.a, found.b))
    voxels = int(np.count_nonzero(before != after))
    return {
        "case": case,
        "saved": datetime.now(timezone.utc).date().isoformat(),
        "model": f"{package.manifest.id}@{package.manifest.version}",
        "package": dict(sorted(package.digests.items())),
        "made_by": f"DistillSeg {__version__}",
        "changed_voxels": voxels,
        "changed_ml": voxels * voxel_ml(found.a.image),
        "tolerance_mm": found.tolerance_mm,
        "a": found.a.source,
        "b": found.b.source,
        "structures": [row.to_dict() for row in found.rows],  # how far A is from B
        "left_out": list(left_out),
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
