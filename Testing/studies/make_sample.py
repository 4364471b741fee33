"""Make the bundled sample: a sharp mean image of many hippocampi, in which no patient is seen.

    python Testing/studies/make_sample.py path/to/Task04_Hippocampus

Training cases of the split that the bundled models use are registered group-wise to their own
growing mean: shifted onto each other, then rigid, affine, and by demons to ever sharper means.
After each round the mean moves to the cases' average shape and pose (Guimond et al., 2000,
doi:10.1006/cviu.1999.0815). No case is special at any step, and each voxel is a trimmed mean.
Nothing is random; some ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.datasets import Case, read_dataset
from DistillSegLib.files import replacing, write_text
from DistillSegLib.metrics import dice

SPLIT = {"folds": 5, "fold": 0, "seed": 0}  # of the bundled models: none of their held-out cases
COUNT = 60  # cases in the mean, the most alike after the rigid registration
SMOOTHING_VOXELS = (2.0, 1.5, 1.2)  # of the warps, one round of demons each
TRIM = 0.25  # share of the cases left out of each voxel's mean at either end
WHITE = 1000  # intensity of the 98th percentile in the file

SAMPLES = Path(__file__).resolve().parents[2] / "Resources" / "Samples"
ATTRIBUTION = (
    "Mean image of training cases of the Medical Segmentation Decathlon, Task04 Hippocampus: "
    "Antonelli et al., Nat Commun 13:4128 (2022); Simpson et al., arXiv:1902.09063; "
    "Vanderbilt University Medical Center."
)


@dataclass(frozen=True)
class Member:
    """A case on its way into the mean.

    Attributes:
        image: float32, 0 at its 2nd percentile and 1 at its 98th.
        label: uint8 on the same grid; places the case at first, then only judges the result.
        affine: template point -> image point, mm.
        warp: template point -> template point, applied before `affine`.
        likeness: squared correlation with the template after the last registration.
    """

    image: sitk.Image
    label: sitk.Image
    affine: sitk.AffineTransform
    warp: sitk.Transform
    likeness: float = 0.0

    @property
    def transform(self) -> sitk.Transform:
        return sitk.CompositeTransform([self.affine, self.warp])  # the last is applied first


def load(case: Case) -> Member:
    image = sitk.ReadImage(str(case.images[0]), sitk.sitkFloat32)
    label = sitk.ReadImage(str(case.label), sitk.sitkUInt8)
    low, high = np.percentile(sitk.GetArrayFromImage(image), [2, 98])
    image = sitk.Clamp((image - float(low)) / float(high - low), sitk.sitkFloat32, -0.5, 1.5)
    return Member(image, label, sitk.AffineTransform(3), sitk.Transform(3, sitk.sitkIdentity))


def common_grid(members: Sequence[Member]) -> sitk.Image:
    """An empty image of the members' median size and origin, in their direction."""
    size = np.median([m.image.GetSize() for m in members], axis=0).round().astype(int)
    grid = sitk.Image(size.tolist(), sitk.sitkFloat32)
    grid.SetDirection(members[0].image.GetDirection())
    grid.SetOrigin(np.median([m.image.GetOrigin() for m in members], axis=0).tolist())
    return grid


def centroid_mm(label: sitk.Image) -> NDArray:
    """(3,) the physical centre of all structures together."""
    index = np.argwhere(sitk.GetArrayFromImage(label) > 0).mean(0)[::-1]
    return np.array(label.TransformContinuousIndexToPhysicalPoint(index.tolist()))


def shifted(member: Member, point_mm: NDArray) -> Member:
    """The member with its hippocampus centred on a point of the template, on which it turns."""
    offset = centroid_mm(member.label) - point_mm
    affine = sitk.AffineTransform(np.eye(3).ravel().tolist(), offset.tolist(), point_mm.tolist())
    return replace(member, affine=affine)


def like(grid: sitk.Image, values: NDArray) -> sitk.Image:
    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.CopyInformation(grid)
    return image


def placed(member: Member, template: sitk.Image) -> NDArray:
    """(D, H, W) the member on the template's grid, in its contrast; NaN where it ends."""
    ones = like(member.image, np.ones(member.image.GetSize()[::-1]))
    inside = sitk.Resample(ones, template, member.transform, sitk.sitkLinear)
    inside = sitk.GetArrayFromImage(inside) > 0.99
    image = sitk.Resample(member.image, template, member.transform, sitk.sitkBSpline)
    values, known = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(template)
    if known.any():
        gain = known[inside].std() / values[inside].std()
        values = gain * (values - values[inside].mean()) + known[inside].mean()
    return np.where(inside, values, np.nan)


def mean_image(members: Sequence[Member], template: sitk.Image) -> sitk.Image:
    """The members' trimmed mean on the template's grid."""
    ordered = np.sort(np.stack([placed(member, template) for member in members]), axis=0)
    count = np.isfinite(ordered).sum(0)  # NaN comes last in the order
    rank = np.arange(len(ordered))[:, None, None, None]
    cut = np.floor(TRIM * count)
    middle = (rank >= cut) & (rank < count - cut)
    return like(template, np.where(middle, ordered, 0).sum(0) / np.maximum(middle.sum(0), 1))


def register(member: Member, template: sitk.Image, kind: sitk.Transform) -> Member:
    """The member registered afresh, from its present affine, by a transform of that kind.

    Args:
        kind: a rigid or affine identity transform.
    """
    start = type(kind)(kind)
    start.SetCenter(member.affine.GetCenter())
    start.SetTranslation(member.affine.GetTranslation())
    start.SetMatrix(member.affine.GetMatrix())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(0.5, 1e-2, 60, 0.7)  # 1.0 overshoots
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, True)
    method.Execute(template, member.image)
    affine = sitk.AffineTransform(start.GetMatrix(), start.GetTranslation(), start.GetCenter())
    warp = sitk.Transform(3, sitk.sitkIdentity)
    return replace(member, affine=affine, warp=warp, likeness=-method.GetMetricValue())


def warped(member: Member, template: sitk.Image, smoothing_voxels: float) -> Member:
    """The member warped further by demons; where it has no voxels the template stands in."""
    values = placed(member, template)
    values = np.where(np.isnan(values), sitk.GetArrayFromImage(template), values)
    moving = like(template, values)
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetStandardDeviations(smoothing_voxels)
    demons.SetNumberOfIterations(30)
    field = demons.Execute(*(sitk.SmoothingRecursiveGaussian(i, 1.5) for i in (template, moving)))
    field = demons.Execute(template, moving, field)
    field = sitk.DisplacementFieldTransform(field)
    return replace(member, warp=sitk.CompositeTransform([member.warp, field]))


def at_average_shape(members: Sequence[Member], grid: sitk.Image) -> list[Member]:
    """The members placed on a template that has their average shape and pose."""
    to_field = sitk.TransformToDisplacementFieldFilter()
    to_field.SetReferenceImage(grid)
    drift = sum(sitk.GetArrayFromImage(to_field.Execute(m.transform)) for m in members)
    drift = sitk.GetImageFromArray(drift / len(members), isVector=True)  # (D, H, W, 3) in x, y, z
    drift.CopyInformation(grid)
    back = sitk.InvertDisplacementField(drift, maximumNumberOfIterations=30)
    back = sitk.DisplacementFieldTransform(back)
    return [replace(m, warp=sitk.CompositeTransform([m.warp, back])) for m in members]


def make_mean(members: Sequence[Member]) -> tuple[sitk.Image, list[Member]]:
    """The sharp mean, and the best fitting members, `COUNT` of them, that it is the mean of."""
    grid = common_grid(members)
    middle = np.mean([centroid_mm(m.label) for m in members], axis=0)
    members = [shifted(m, middle) for m in members]
    template = mean_image(members, grid)

    members = [register(m, template, sitk.Euler3DTransform()) for m in members]
    members = sorted(members, key=lambda m: -m.likeness)[:COUNT]
    members = at_average_shape(members, grid)
    template = mean_image(members, template)

    members = [register(m, template, sitk.AffineTransform(3)) for m in members]
    members = at_average_shape(members, grid)
    template = mean_image(members, template)

    for smoothing in SMOOTHING_VOXELS:
        members = [warped(m, template, smoothing) for m in members]
        members = at_average_shape(members, grid)
        template = mean_image(members, template)
        print(f"smoothing {smoothing}: sharpness {sharpness(template, members):.2f}", flush=True)
    return template, members


def sharpness(template: sitk.Image, members: Sequence[Member]) -> float:
    """The template's mean gradient as a share of that of its members, one by one."""
    slope = [gradient(like(template, np.nan_to_num(placed(m, template)))) for m in members]
    return gradient(template) / float(np.median(slope))


def gradient(image: sitk.Image) -> float:
    inner = sitk.GetArrayFromImage(image)[8:-8, 8:-8, 8:-8]
    return float(np.mean(np.sqrt(sum(slope**2 for slope in np.gradient(inner)))))


def vote(members: Sequence[Member], grid: sitk.Image) -> tuple[NDArray, dict[int, float]]:
    """(D, H, W) what most members carry there, and the members' mean Dice with it by label."""
    nearest = sitk.sitkNearestNeighbor
    images = (sitk.Resample(m.label, grid, m.transform, nearest) for m in members)
    labels = np.stack([sitk.GetArrayFromImage(image) for image in images])
    values = range(labels.max() + 1)
    winner = np.argmax([(labels == value).sum(0) for value in values], axis=0)
    agreement = {
        value: float(np.mean([dice(one == value, winner == value) for one in labels]))
        for value in values[1:]
    }
    return winner, agreement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder of Task04_Hippocampus")
    parser.add_argument("--out", type=Path, default=SAMPLES, help="folder (default: %(default)s)")
    options = parser.parse_args()

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # sums in one order: the same result
    train, _ = read_dataset(options.data).split(**SPLIT)
    template, members = make_mean([load(case) for case in train])
    image = sitk.Cast(sitk.Clamp(template * WHITE, lowerBound=0), sitk.sitkInt16)
    labels, agreement = vote(members, template)
    with replacing(options.out / "hippocampus-mean.nii.gz") as path:
        sitk.WriteImage(image, str(path), useCompression=True)
    facts = {
        "name": "Hippocampus sample",
        "title": "Mean T1 MR image of the hippocampus, head to tail",
        "licence": "CC BY-SA 4.0",
        "attribution": ATTRIBUTION,
        "cases": len(members),
        "chosen_from": len(train),
        "split": SPLIT,
        "sharpness": round(sharpness(template, members), 2),
        "volume_ml": {str(v): round(float(np.sum(labels == v)) / 1000, 2) for v in agreement},
        "agreement_dice": {str(v): round(mean, 3) for v, mean in agreement.items()},
        "command": "python Testing/studies/make_sample.py Task04_Hippocampus",
    }
    write_text(options.out / "hippocampus-mean.json", json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
