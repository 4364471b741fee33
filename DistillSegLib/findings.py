"""What a result says about itself, by structure: volume, parts, and whether it is cut off.

Nothing here knows what is normal; these are signs that a person should look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import SimpleITK as sitk

from DistillSegLib.boxes import Box
from DistillSegLib.errors import Cancelled
from DistillSegLib.postprocessing import connected_parts
from DistillSegLib.runs import boxes_by_value
from DistillSegLib.segmentations import Segmentation, volumes_by_value_ml
from DistillSegLib.windows import never


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


def findings(
    segmentation: Segmentation, *, stack: bool = False, cancelled: Callable[[], bool] = never
) -> list[Finding]:
    """One entry for each structure of the label table, in its order.

    Args:
        stack: the image is a stack of which every slice cuts the organ, as models of the
            orientation "slices" take it: its first and last slice are no border.

    Raises:
        Cancelled: between two structures.
    """
    volumes = volumes_by_value_ml(segmentation.image)
    voxels = sitk.GetArrayViewFromImage(segmentation.image)
    boxes, found = boxes_by_value(voxels), []
    spacing = segmentation.image.GetSpacing()[::-1]
    sizes = [1 if stack and mm == max(spacing) else n for n, mm in zip(voxels.shape, spacing)]
    for label in segmentation.labels:
        if cancelled():
            raise Cancelled("The structures were not measured; it was cancelled.")
        box = boxes.get(label.value)
        parts = int(connected_parts(voxels[box] == label.value).max()) if box else 0
        found.append(
            Finding(
                label.value,
                label.name,
                volumes.get(label.value, 0.0),
                parts,
                box is not None and _reaches_border(box, sizes),
            )
        )
    return found


def _reaches_border(box: Box, shape: Sequence[int]) -> bool:
    """Whether a box reaches the first or last slice of an image.

    Along an axis of a single slice nothing does.
    """
    return any(
        n > 1 and (part.start == 0 or part.stop == n) for part, n in zip(box, shape, strict=True)
    )
