"""Clean-up that a package declares: what a network leaves beside a structure is taken away.

A step only ever turns voxels of its own labels into background. A label's voxels belong together if
they touch, also at an edge or a corner.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from DistillSegLib.runs import boxes_by_value

if TYPE_CHECKING:
    import SimpleITK as sitk


@dataclass(frozen=True)
class KeepLargest:
    """Keep the largest connected part of each label, the first of equals; for single organs.

    Attributes:
        labels: values in the label map.
    """

    labels: tuple[int, ...]

    def kept(self, sizes: NDArray[np.integer], voxel_ml: float) -> NDArray[np.bool_]:
        """(P,) voxels of each part -> (P,) whether it stays."""
        return np.arange(len(sizes)) == sizes.argmax()


@dataclass(frozen=True)
class RemoveSmall:
    """Remove the connected parts of each label below a volume; all of them if all are small.

    Attributes:
        labels: values in the label map.
        volume_ml: the smallest volume that stays.
    """

    labels: tuple[int, ...]
    volume_ml: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.volume_ml) and self.volume_ml >= 0):
            raise ValueError(f"volume_ml must be 0 or more, found {self.volume_ml}.")

    def kept(self, sizes: NDArray[np.integer], voxel_ml: float) -> NDArray[np.bool_]:
        """(P,) voxels of each part -> (P,) whether it stays."""
        # A part of exactly the volume stays, whatever the rounding of its product.
        return sizes * voxel_ml >= self.volume_ml * (1 - 1e-9)


Step = KeepLargest | RemoveSmall


def apply(steps: Iterable[Step], labelmap: sitk.Image) -> sitk.Image:
    """The label map after all steps, in their order, on the same grid and in the same pixel type.

    Args:
        labelmap: (D, H, W) label values.
    """
    import SimpleITK as sitk  # here, because training imports this file without it

    from DistillSegLib.geometry import voxel_ml

    steps = tuple(steps)
    if not steps:
        return labelmap
    voxels = sitk.GetArrayFromImage(labelmap)
    one_ml = voxel_ml(labelmap)
    boxes = boxes_by_value(voxels)  # they only shrink
    for step in steps:
        for value in step.labels:
            box = boxes.get(value)
            if box is None:
                continue
            mask = voxels[box] == value
            if not mask.any():  # an earlier step has taken it
                continue
            parts = connected_parts(mask)
            kept = step.kept(np.bincount(parts.ravel())[1:], one_ml)
            voxels[box][mask & ~np.append(False, kept)[parts]] = 0
    result = sitk.GetImageFromArray(voxels)
    result.CopyInformation(labelmap)
    return result


def connected_parts(mask: NDArray[np.bool_]) -> NDArray[np.unsignedinteger]:
    """The number of the connected part, from 1, of each true voxel; 0 elsewhere."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    return sitk.GetArrayFromImage(sitk.ConnectedComponent(image, True))
