"""A small square picture of a result, for lists of models: the slice that shows most of it."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.geometry import reorient
from DistillSegLib.preprocessing import Intensity
from DistillSegLib.segmentations import Segmentation

EDGE = 144  # pixels; twice what a list shows, for dense screens
MARGIN = 1.35  # times the structures' size
TINT = 0.55  # of the structure's colour within it


def thumbnail(
    image: sitk.Image,
    segmentation: Segmentation,
    *,
    intensity: Intensity | None = None,
    edge: int = EDGE,
) -> NDArray:
    """(edge, edge, 3) uint8: grey values with the structures in their colours.

    Args:
        image: on the grid of the segmentation.
        intensity: what the network looks at. Of fixed units, such as Hounsfield's, twice that range
            is shown; otherwise all but the outermost values.
    """
    if intensity is not None and intensity.scheme == "fixed":
        low, high = intensity.clip
        margin = (high - low) / 2
        image = sitk.Clamp(image, image.GetPixelID(), low - margin, high + margin)
    grey, labels = (reorient(each, "LPS") for each in (image, segmentation.image))
    voxels = sitk.GetArrayViewFromImage(labels)
    axis, index = _best_slice(voxels)
    center = _center(np.argwhere(np.take(voxels, index, axis)))
    spacing = [s for n, s in enumerate(grey.GetSpacing()[::-1]) if n != axis]
    extent = _extent(np.take(voxels, index, axis), spacing)
    cut = [_slice(sitk.GetArrayViewFromImage(each), axis, index) for each in (grey, labels)]

    def drawn(plane: NDArray) -> NDArray:
        return _square(plane, spacing, center, extent, edge)

    low, high = np.percentile(cut[0], (0.5, 99.5))
    bright = np.clip((drawn(cut[0]) - low) / max(high - low, 1e-6), 0, 1)
    picture = np.repeat(255 * bright[..., None], 3, axis=-1)
    for label in segmentation.labels:
        share = drawn((cut[1] == label.value).astype(np.float32))
        inside, rim = share > 0.5, np.abs(share - 0.5) < 0.12
        color = np.array(label.color, np.float32)
        picture[inside] = (1 - TINT) * picture[inside] + TINT * color
        picture[rim] = 0.2 * picture[rim] + 0.8 * color
    return np.flipud(picture.round().astype(np.uint8)) if axis else picture.round().astype(np.uint8)


def _best_slice(voxels: NDArray) -> tuple[int, int]:
    """Axis and index where most structures are seen, and the smallest of them best."""
    best = (0, 0, 0, voxels.shape[0] // 2)
    for axis in range(3):
        for index in range(voxels.shape[axis]):
            counts = np.bincount(np.take(voxels, index, axis).ravel())[1:]
            seen = counts[counts > 0]
            if len(seen):
                best = max(best, (len(seen), int(seen.min()), axis, index))
    return best[2], best[3]


def _slice(voxels: NDArray, axis: int, index: int) -> NDArray[np.float32]:
    return np.take(voxels, index, axis).astype(np.float32)


def _center(places: NDArray) -> NDArray:
    return (places.min(0) + places.max(0)) / 2 if len(places) else np.zeros(2)


def _extent(labels: NDArray, spacing: list[float]) -> float:
    """The edge of the picture in mm."""
    places = np.argwhere(labels)
    if not len(places):
        return float(min(n * s for n, s in zip(labels.shape, spacing)))
    return MARGIN * float(((np.ptp(places, axis=0) + 1) * spacing).max())


def _square(plane: NDArray, spacing: list[float], center, extent: float, edge: int) -> NDArray:
    """A plane on a square grid of pixels around a point, by cubic interpolation."""
    image = sitk.GetImageFromArray(plane)
    image.SetSpacing(spacing[::-1])
    pixel = extent / edge
    first = [c * s - extent / 2 + pixel / 2 for c, s in zip(center, spacing)]
    return sitk.GetArrayFromImage(
        sitk.Resample(
            image,
            (edge, edge),
            sitk.Transform(2, sitk.sitkIdentity),
            sitk.sitkBSpline,
            first[::-1],
            (pixel, pixel),
            (1.0, 0.0, 0.0, 1.0),
            float(plane.min()),
        )
    )
