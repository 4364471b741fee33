"""Boxes of voxels: the part of an image that is worth looking at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]  # z, y, x


def bounding_box(mask: NDArray) -> tuple[slice, ...] | None:
    """The smallest box that holds every true voxel, or None for an empty mask."""
    box = []
    for axis in range(mask.ndim):
        rest = tuple(other for other in range(mask.ndim) if other != axis)
        hits = np.flatnonzero(mask.any(axis=rest))
        if not hits.size:
            return None
        box.append(slice(int(hits[0]), int(hits[-1]) + 1))
        mask = mask[(slice(None),) * axis + (box[-1],)]  # the next axis looks at what is left
    return tuple(box)


def box_around(boxes: Sequence[Box]) -> Box | None:
    """The smallest box that holds all boxes; None where there are none."""
    if not boxes:
        return None
    parts = zip(*boxes)
    return tuple(slice(min(p.start for p in part), max(p.stop for p in part)) for part in parts)


def grown(box: Box, rims: Sequence[int], shape: Sequence[int]) -> Box:
    """A box with a rim of so many voxels on each side along z, y, x, as far as the image goes."""
    return tuple(
        slice(max(0, part.start - rim), min(size, part.stop + rim))
        for part, rim, size in zip(box, rims, shape)
    )


def voxels_within(rim_mm: float, spacing_mm: Sequence[float]) -> list[int]:
    """How many voxels along each axis reach at least so far."""
    return [math.ceil(rim_mm / step) for step in spacing_mm]
