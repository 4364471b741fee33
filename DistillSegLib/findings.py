"""What a result says about itself, by structure: volume, parts, and whether it is cut off.

Nothing here knows what is normal; these are signs that a person should look.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from DistillSegLib.comparison import volumes_by_value_ml
from DistillSegLib.postprocessing import connected_parts
from DistillSegLib.segmentations import Segmentation


@dataclass(frozen=True)
class Finding:
    """One structure of a result.

    Attributes:
        value, name: of its label.
        volume_ml: 0 where nothing was found.
        parts: pieces that do not touch each other, not even by a corner.
        touches_border: whether it reaches the edge of the image and may go on beyond.
    """

    value: int
    name: str
    volume_ml: float
    parts: int
    touches_border: bool


def findings(segmentation: Segmentation) -> list[Finding]:
    """One entry for each structure of the label table, in its order."""
    volumes = volumes_by_value_ml(segmentation.image)
    voxels = sitk.GetArrayViewFromImage(segmentation.image)
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.SetComputePerimeter(False)
    statistics.Execute(segmentation.image)
    boxes = {value: statistics.GetBoundingBox(value) for value in statistics.GetLabels()}
    found = []
    for label in segmentation.labels:
        parts, border = 0, False
        if label.value in boxes:
            start, size = (
                np.array(part)[::-1] for part in np.split(np.array(boxes[label.value]), 2)
            )
            border = _reaches(start, size, voxels.shape)
            box = tuple(slice(i, i + n) for i, n in zip(start, size))
            parts = int(connected_parts(voxels[box] == label.value).max())
        volume = volumes.get(label.value, 0.0)
        found.append(Finding(label.value, label.name, volume, parts, border))
    return found


def _reaches(start: np.ndarray, size: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a box reaches the first or last slice; along an axis of one slice nothing does."""
    long = np.array(shape) > 1
    return bool(np.any(long & ((start == 0) | (start + size == shape))))
