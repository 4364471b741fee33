"""Where two masks of one structure differ: slice by slice, the worst slices, a map.

Slices are those of the image itself, seen along the axis that runs nearest to superior (axial),
anterior (coronal) or right (sagittal). Positions and points are RAS, in mm, as Slicer's slice views
show them. If they were wrong, a reader would be led to a slice where nothing differs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.boxes import Box
from DistillSegLib.geometry import spacing_of
from DistillSegLib.regions import RAS_TO_LPS

PLANES = ("axial", "coronal", "sagittal")
AGREE, ONLY_A, ONLY_B = 1, 2, 3  # values of a map


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Where A and B differ in one structure.

    Attributes:
        box: around both masks, with a rim of one voxel as far as the image goes.
        areas_mm2: by plane, (n,): what only one of both holds in each slice of the image.
        step_mm: by plane, from one slice to the next.
    """

    box: Box
    areas_mm2: dict[str, NDArray[np.float64]]
    step_mm: dict[str, float]

    def worst(self, plane: str, *, count: int = 10, apart_mm: float = 5.0) -> tuple[int, ...]:
        """The slices with the largest areas, worst first, none nearer than `apart_mm` to another.

        Not those of the lowest Dice: the tiny slices at a structure's ends would always win.
        """
        areas, found = self.areas_mm2[plane], []
        for index in np.argsort(-areas, kind="stable"):
            if len(found) == count or areas[index] <= 0:
                break
            apart = (abs(int(index) - other) * self.step_mm[plane] for other in found)
            if all(mm >= apart_mm - 1e-6 for mm in apart):
                found.append(int(index))
        return tuple(found)


def disagreement(a: NDArray, b: NDArray, box: Box, image: sitk.Image) -> Disagreement:
    """Two (z, y, x) bool masks, cut to `box` of `image`, against each other."""
    spacing_mm, size = spacing_of(image), image.GetSize()[::-1]
    differing, areas_mm2, step_mm = a ^ b, {}, {}
    for plane, axis in zip(PLANES, anatomical_axes(image)):
        others = tuple(other for other in range(3) if other != axis)
        pixel_mm2 = math.prod(spacing_mm[other] for other in others)
        areas = np.zeros(size[axis])
        areas[box[axis]] = np.count_nonzero(differing, axis=others) * pixel_mm2
        areas_mm2[plane], step_mm[plane] = areas, float(spacing_mm[axis])
    return Disagreement(box, areas_mm2, step_mm)


def map_of(a: NDArray, b: NDArray) -> NDArray[np.uint8]:
    """Two bool masks as `AGREE`, `ONLY_A` and `ONLY_B`; 0 where neither is."""
    found = np.zeros(a.shape, np.uint8)
    found[a & b] = AGREE
    found[a & ~b] = ONLY_A
    found[b & ~a] = ONLY_B
    return found


def signed_distance_mm(mask: NDArray, spacing_mm: tuple[float, float, float]) -> NDArray:
    """How far each voxel lies from a mask's outermost voxels, negative inside, as float32.

    Args:
        mask: (z, y, x) bool with at least one voxel.
        spacing_mm: voxel spacing as (z, y, x).
    """
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing([float(step) for step in reversed(spacing_mm)])
    found = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    return sitk.GetArrayFromImage(found)


def anatomical_axes(image: sitk.Image) -> tuple[int, int, int]:
    """The array axes (0 is z) that run nearest to superior, posterior and left.

    Axial, coronal and sagittal slices are stacked along them. Each axis is taken once, the best
    fit first.
    """
    along = np.abs(np.reshape(image.GetDirection(), (3, 3)))  # [world x y z, image x y z]
    axes = [0, 0, 0]
    for _ in range(3):
        world, index = np.unravel_index(along.argmax(), along.shape)
        axes[2 - world] = 2 - int(index)
        along[world, :] = along[:, index] = -1
    return axes[0], axes[1], axes[2]


def positions_mm(image: sitk.Image, plane: str) -> NDArray[np.float64]:
    """(n,): how far each slice lies to superior, anterior or right of the origin.

    Measured along the normal of the plane's slices, as the slider of a slice view does.
    """
    axis = anatomical_axes(image)[PLANES.index(plane)]
    directions = np.reshape(image.GetDirection(), (3, 3)) * RAS_TO_LPS[:, None]
    normal = directions[:, 2 - axis]
    normal = normal * np.sign(normal[2 - PLANES.index(plane)])
    first = np.zeros(3)
    last = np.zeros(3)
    last[2 - axis] = image.GetSize()[2 - axis] - 1
    ends = [float(normal @ point_mm(image, index)) for index in (first, last)]
    return np.linspace(*ends, image.GetSize()[2 - axis])


def point_mm(image: sitk.Image, index: NDArray) -> NDArray[np.float64]:
    """The RAS point of a (continuous) voxel index (x, y, z)."""
    point = image.TransformContinuousIndexToPhysicalPoint([float(each) for each in index])
    return np.array(point) * RAS_TO_LPS


def differing_point_mm(
    a: NDArray, b: NDArray, box: Box, image: sitk.Image, *, plane: str, index: int
) -> NDArray[np.float64]:
    """A RAS point in the middle of what differs in a slice; of the slice if nothing does.

    Args:
        a, b: (z, y, x) bool, cut to `box`.
        index: of the slice, counted in the whole image.
    """
    axis = anatomical_axes(image)[PLANES.index(plane)]
    start = np.array([part.start for part in box])
    inside = index - start[axis]
    found = np.empty((0, 3), int)
    if 0 <= inside < a.shape[axis]:
        pixels = np.take(a, inside, axis) ^ np.take(b, inside, axis)
        found = np.insert(np.argwhere(pixels), axis, inside, axis=1)
    if len(found):
        middle = found.mean(axis=0)
        place = found[np.square(found - middle).sum(axis=1).argmin()] + start
    else:
        place = start + (np.array(a.shape) - 1) / 2
        place[axis] = index
    return point_mm(image, place[::-1])
