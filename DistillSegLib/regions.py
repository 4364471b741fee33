"""Boxes in the patient: the part of a scan that a model is asked about.

Users, and Slicer's views, speak RAS: x to the patient's right, y to anterior, z to superior.
SimpleITK speaks LPS. The two are turned into each other in this file and nowhere else. If that were
wrong, the model would be shown the other side of the patient.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from DistillSegLib.errors import GeometryError

Triple = tuple[float, float, float]

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])  # its own inverse
ROUNDING = 1e-6  # voxels; a face on the border of a voxel must not take in the next


@dataclass(frozen=True)
class Region:
    """A box in the patient, possibly turned.

    Attributes:
        center_mm: (x, y, z), RAS.
        size_mm: whole lengths along the three axes.
        axes: the directions (RAS, unit length) along which the lengths are measured.
    """

    center_mm: Triple
    size_mm: Triple
    axes: tuple[Triple, Triple, Triple] = IDENTITY

    def __post_init__(self) -> None:
        numbers = np.array([self.center_mm, self.size_mm, *self.axes], dtype=float)
        if numbers.shape != (5, 3) or not np.isfinite(numbers).all():
            raise GeometryError(
                f"The region (centre {self.center_mm}, size {self.size_mm}) is not made of finite "
                "numbers; give three for the centre and three for the size, in mm."
            )
        if numbers[1].min() <= 0:
            raise GeometryError(
                f"The region's size is {_by(self.size_mm)} mm; each must be above zero."
            )
        if not np.allclose(numbers[2:] @ numbers[2:].T, np.eye(3), atol=1e-3):
            raise GeometryError(
                f"The region's axes {self.axes} are not at right angles and of length one; "
                "draw the region anew."
            )

    @classmethod
    def from_numbers(cls, x: float, y: float, z: float, sx: float, sy: float, sz: float) -> Region:
        """A box along the patient's axes: its centre and its size, in mm, RAS."""
        return cls((x, y, z), (sx, sy, sz))

    @classmethod
    def along(cls, image: sitk.Image, center_mm: Triple, size_mm: Triple) -> Region:
        """A box along an image's own axes, each named after the patient's axis it runs nearest to.

        A box along the patient's axes would cut an oblique image into more voxels than asked for.

        Args:
            center_mm: (x, y, z), RAS.
            size_mm: lengths along the axes nearest to right, anterior and superior.
        """
        columns = np.reshape(image.GetDirection(), (3, 3)) * RAS_TO_LPS[:, None]
        left, _, right = np.linalg.svd(columns)
        straight = left @ right  # the nearest axes at right angles, for an image that is sheared
        axes, rest = [], [0, 1, 2]
        for world in range(3):
            nearest = max(rest, key=lambda column: abs(straight[world, column]))
            rest.remove(nearest)
            axis = straight[:, nearest] * (1 if straight[world, nearest] >= 0 else -1)
            axes.append(tuple((axis + 0.0).tolist()))
        return cls(tuple(center_mm), tuple(size_mm), tuple(axes))

    def corners_mm(self) -> np.ndarray:
        """(8, 3), RAS."""
        half = np.array(list(product((-0.5, 0.5), repeat=3))) * self.size_mm
        return half @ np.array(self.axes) + self.center_mm

    def index_box(self, image: sitk.Image) -> tuple[slice, slice, slice]:
        """The smallest box of voxels (z, y, x) that holds the region, as far as the image goes.

        Raises GeometryError where region and image have no voxel in common.
        """
        corners = np.array(
            [
                image.TransformPhysicalPointToContinuousIndex(corner)
                for corner in (self.corners_mm() * RAS_TO_LPS).tolist()
            ]
        )
        # Voxel i reaches from i - 0.5 to i + 0.5.
        size = np.array(image.GetSize())
        first = np.floor(corners.min(axis=0) + 0.5 + ROUNDING).clip(0).astype(int)
        last = np.minimum(np.ceil(corners.max(axis=0) + 0.5 - ROUNDING), size).astype(int)
        if (first >= last).any():
            raise GeometryError(
                f"The region ({_extent(self.corners_mm())}) lies outside the image "
                f"({_extent(_image_corners_mm(image))}); move it onto the image. Coordinates are "
                "RAS, in mm, as in Slicer."
            )
        return tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))[::-1]


def read_region(path: Path | str) -> Region:
    """The one box in a Slicer markups file (`.mrk.json`), in whichever coordinates it was saved."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        markups = content["markups"]
        kinds = [markup["type"] for markup in markups]
    except OSError as problem:
        raise GeometryError(
            f"The region '{path}' could not be read ({problem.strerror}); check its name."
        ) from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise GeometryError(
            f"'{path}' is no Slicer markups file; save the region from Slicer as .mrk.json."
        ) from problem
    rois = [markup for markup in markups if markup["type"] == "ROI"]
    if len(rois) != 1:
        raise GeometryError(
            f"'{path}' holds {len(rois)} regions ({', '.join(map(str, kinds)) or 'nothing'}); "
            "exactly one of type ROI is needed. Save it as a file of its own."
        )
    try:
        return _region_of(rois[0])
    except GeometryError as problem:
        raise GeometryError(f"'{path}': {problem}") from problem


def _region_of(roi: dict[str, Any]) -> Region:
    system = roi.get("coordinateSystem")
    if system not in ("RAS", "LPS"):
        raise GeometryError(
            f"The region's coordinateSystem is {system!r}; 'RAS' or 'LPS' is needed, for the same "
            "numbers lie on opposite sides of the patient. Save it again from Slicer."
        )
    if roi.get("insideOut"):
        raise GeometryError(
            "The region is inside out: it means everything but the box. Untick that in Slicer."
        )
    center = _numbers(roi, "center", 3)
    size = _numbers(roi, "size", 3)
    # Rows are coordinates, columns are the box's axes; Slicer turns the rows from RAS to LPS.
    axes = _numbers(roi, "orientation", 9, default=np.eye(3).ravel()).reshape(3, 3).T
    if system == "LPS":
        center, axes = center * RAS_TO_LPS, axes * RAS_TO_LPS
    return Region(tuple(center.tolist()), tuple(size.tolist()), tuple(map(tuple, axes.tolist())))


def _numbers(roi: dict[str, Any], key: str, count: int, default: Any = None) -> np.ndarray:
    value = roi.get(key, default)
    try:
        numbers = np.array(value, dtype=float)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (count,):
        raise GeometryError(
            f"The region's '{key}' is {value!r}, not {count} numbers; save it again from Slicer."
        )
    return numbers


def _image_corners_mm(image: sitk.Image) -> np.ndarray:
    ends = [(-0.5, n - 0.5) for n in image.GetSize()]
    return (
        np.array([image.TransformContinuousIndexToPhysicalPoint(end) for end in product(*ends)])
        * RAS_TO_LPS
    )


def _extent(corners: np.ndarray) -> str:
    ranges = zip("xyz", corners.min(axis=0), corners.max(axis=0), strict=True)
    return ", ".join(f"{axis} {low:.0f} to {high:.0f}" for axis, low, high in ranges)


def _by(numbers: Triple) -> str:
    return "x".join(f"{number:.4g}" for number in numbers)
