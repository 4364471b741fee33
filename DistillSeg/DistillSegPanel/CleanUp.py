"""Small parts beside a structure, taken away on request; the model's own output is kept.

Worker thread: neither Qt nor MRML.
"""

from dataclasses import dataclass, fields

import SimpleITK as sitk

from DistillSegLib.postprocessing import KeepLargest, RemoveSmall, apply
from DistillSegLib.segmentations import Segmentation

CLEAN_UPS = ("none", "largest", "small")
SMALL_ML = 0.1


@dataclass(frozen=True)
class Cleaned(Segmentation):
    """A segmentation without small parts.

    Attributes:
        raw: the label map as the model gave it.
    """

    raw: sitk.Image | None = None


def cleaned(segmentation, how):
    """A segmentation as it is for "none", otherwise a `Cleaned` one.

    Args:
        how: "largest" keeps the largest part of each structure, "small" removes those below 0.1 ml.
    """
    if how == "none":
        return segmentation
    values = tuple(label.value for label in segmentation.labels)
    step = KeepLargest(values) if how == "largest" else RemoveSmall(values, SMALL_ML)
    known = {each.name: getattr(segmentation, each.name) for each in fields(Segmentation)}
    known["image"] = apply((step,), segmentation.image)
    return Cleaned(**known, raw=segmentation.image)
