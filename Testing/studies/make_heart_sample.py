"""Make the bundled sample of the left ventricle: a mean short-axis stack that shows no patient.

    python Testing/studies/make_heart_sample.py LeftVentricle

Stacks at end diastole, of the training cases of the split that the bundled models use, are brought
to as many slices from base to apex, to the same size and place of the cavity, and turned to fit
their growing mean best; then they are warped onto it by demons, slice by slice. Each voxel is a
trimmed mean, as in `make_sample.py`, on which this rests. Nothing is random; minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from make_sample import (
    SAMPLES,
    SPLIT,
    Member,
    load,
    mean_image,
    placed,
    vote,
)
from numpy.typing import NDArray

from DistillSegLib.datasets import read_dataset
from DistillSegLib.files import replacing, write_text

SIZE = (208, 208, 9)  # x, y, z of the template
SPACING_MM = (1.3671875, 1.3671875, 8.0)
ANGLES = np.arange(-40, 41, 5)  # degrees within the slices
RADIUS_MM = 60.0  # about the cavity, where turns are judged
SMOOTHING_VOXELS = (3.0, 2.0)  # of the warps, one round of demons each
WHITE = 250  # intensity of the 98th percentile in the file
ATTRIBUTION = (
    "Mean image of training cases of the Sunnybrook Cardiac Data: Radau et al., Evaluation "
    "Framework for Algorithms Segmenting Short Axis Cardiac MRI, MIDAS Journal 2009."
)


def template_grid() -> sitk.Image:
    """An empty stack about the origin."""
    grid = sitk.Image(list(SIZE), sitk.sitkFloat32)
    grid.SetSpacing(SPACING_MM)
    grid.SetOrigin([-(n - 1) / 2 * s for n, s in zip(SIZE, SPACING_MM, strict=True)])
    return grid


def cavity(label: sitk.Image) -> tuple[NDArray, float]:
    """((2,) its centre x, y in mm; its radius in mm, of the mean area over the slices)."""
    mask = sitk.GetArrayFromImage(label) > 0
    centre = np.argwhere(mask).mean(0)[::-1]
    point = label.TransformContinuousIndexToPhysicalPoint(centre.tolist())
    area = mask.sum() / mask.any(axis=(1, 2)).sum() * np.prod(label.GetSpacing()[:2])
    return np.array(point[:2]), float(np.sqrt(area / np.pi))


def laid(member: Member, radius_mm: float, degrees: float) -> Member:
    """The member with its cavity in the template's middle, of that radius, and turned.

    Its slices are spread evenly over those of the template, edge to edge.
    """
    centre, radius = cavity(member.label)
    turn, scale = np.radians(degrees), radius / radius_mm
    matrix = np.zeros((3, 3))
    matrix[:2, :2] = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    image = member.image
    depth = image.GetSize()[2] * image.GetSpacing()[2]
    matrix[2, 2] = depth / (SIZE[2] * SPACING_MM[2])
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    affine = sitk.AffineTransform(matrix.ravel().tolist(), [*centre, middle[2]])
    return replace(member, affine=affine)


def turned(member: Member, template: sitk.Image, radius_mm: float) -> Member:
    """The member at the angle at which it is most like the template about the cavity."""
    x, y = (np.arange(n) * s - (n - 1) / 2 * s for n, s in zip(SIZE[:2], SPACING_MM[:2]))
    near = np.broadcast_to(np.hypot(y[:, None], x[None]) < RADIUS_MM, SIZE[::-1])
    known = sitk.GetArrayFromImage(template)[near]

    def likeness(candidate: Member) -> float:
        values = placed(candidate, template)[near]
        inside = np.isfinite(values)
        return float(np.corrcoef(values[inside], known[inside])[0, 1])

    return max((laid(member, radius_mm, angle) for angle in ANGLES), key=likeness)


def warped(member: Member, template: sitk.Image, smoothing_voxels: float) -> Member:
    """The member warped further by demons within each slice; the template stands in beyond it."""
    known = sitk.GetArrayFromImage(template)
    values = placed(member, template)
    values = np.where(np.isnan(values), known, values)
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetStandardDeviations(smoothing_voxels)
    demons.SetNumberOfIterations(40)
    field = np.zeros((*known.shape, 3))
    for number, pair in enumerate(zip(known, values, strict=True)):
        fixed, moving = (sitk.GetImageFromArray(each.astype(np.float32)) for each in pair)
        shift = demons.Execute(fixed, moving)
        field[number, ..., :2] = sitk.GetArrayFromImage(shift) * SPACING_MM[:2]  # voxels to mm
    field = sitk.GetImageFromArray(field, isVector=True)
    field.CopyInformation(template)
    warp = sitk.CompositeTransform([member.warp, sitk.DisplacementFieldTransform(field)])
    return replace(member, warp=warp)


def make_mean(members: Sequence[Member]) -> tuple[sitk.Image, list[Member]]:
    """The mean stack and its members."""
    grid = template_grid()
    radius_mm = float(np.mean([cavity(member.label)[1] for member in members]))
    members = [laid(member, radius_mm, 0.0) for member in members]
    template = mean_image(members, grid)
    for _ in range(2):
        members = [turned(member, template, radius_mm) for member in members]
        template = mean_image(members, template)
    for smoothing in SMOOTHING_VOXELS:
        members = [warped(member, template, smoothing) for member in members]
        template = mean_image(members, template)
        print(
            f"smoothing {smoothing}: sharpness {flat_sharpness(template, members):.2f}", flush=True
        )
    return template, members


def flat_sharpness(template: sitk.Image, members: Sequence[Member]) -> float:
    """The template's mean gradient within the slices as a share of that of its members."""

    def gradient(stack: NDArray) -> float:
        inner = np.nan_to_num(stack)[:, 40:-40, 40:-40]
        return float(np.mean(np.hypot(*np.gradient(inner, axis=(1, 2)))))

    slopes = [gradient(placed(member, template)) for member in members]
    return gradient(sitk.GetArrayFromImage(template)) / float(np.median(slopes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument("--out", type=Path, default=SAMPLES, help="folder (default: %(default)s)")
    options = parser.parse_args()

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # sums in one order: the same result
    train, _ = read_dataset(options.data).split(**SPLIT)
    template, members = make_mean([load(case) for case in train if case.id.endswith("_ED")])
    low, high = np.percentile(sitk.GetArrayFromImage(template), [2, 98])
    image = (template - float(low)) * (WHITE / float(high - low))
    image = sitk.Cast(sitk.Clamp(image, lowerBound=0, upperBound=2 * WHITE), sitk.sitkInt16)
    labels, agreement = vote(members, template)
    voxel_ml = float(np.prod(SPACING_MM)) / 1000
    with replacing(options.out / "left-ventricle-mean.nii.gz") as path:
        sitk.WriteImage(image, str(path), useCompression=True)
    facts = {
        "name": "Left ventricle sample",
        "title": "Mean short-axis cine MR stack of the heart at end diastole, base to apex",
        "licence": "CC0 1.0",
        "attribution": ATTRIBUTION,
        "cases": len(members),
        "chosen_from": len(members),
        "split": SPLIT,
        "sharpness": round(flat_sharpness(template, members), 2),
        "volume_ml": {str(v): round(float(np.sum(labels == v)) * voxel_ml, 1) for v in agreement},
        "agreement_dice": {str(v): round(mean, 3) for v, mean in agreement.items()},
        "command": "python Testing/studies/make_heart_sample.py LeftVentricle",
    }
    write_text(options.out / "left-ventricle-mean.json", json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
