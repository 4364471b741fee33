"""An image's voxels where a network wants them: oriented and interpolated in one step.

The same numbers as `reorient` and then `resample` (linear) give, without an oriented copy of the
whole image, and several times faster where the network's grid is coarser: each slice is first
reduced in its plane, and only then are neighbouring slices mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.geometry import Grid, Part, Spacing, turning


@dataclass(frozen=True)
class Lattice:
    """Where a network's grid lies among an image's voxels.

    Attributes:
        grid: of the network.
        axes: the stored axis (x first) along each of its axes.
        places: along each stored axis (z, y, x), the network's voxels as indices of the image,
            within the first and the last, rising or falling.
    """

    grid: Grid
    axes: tuple[int, ...]
    places: tuple[NDArray[np.float64], ...]

    def cut(self, box: Part) -> Lattice:
        """Only the network's voxels (z, y, x) of a box."""
        places = list(self.places)
        for stored, kept in zip(self.axes, box[::-1], strict=True):
            places[2 - stored] = places[2 - stored][kept]
        return Lattice(self.grid.cut(box), self.axes, tuple(places))

    def holding(self, part: Part) -> list[tuple[int, int]]:
        """(z, y, x) first and last + 1 of the network's voxels in and beside those of the image."""
        found = []
        for stored in reversed(self.axes):
            along, kept = self.places[2 - stored], part[2 - stored]
            inside = np.flatnonzero((along > kept.start - 1) & (along < kept.stop))
            ends = (inside[0] - 1, inside[-1] + 2) if len(inside) else (0, len(along))
            found.append((int(max(ends[0], 0)), int(min(ends[1], len(along)))))
        return found


def lattice(own: Grid, orientation: str, spacing_mm: Spacing | None) -> Lattice:
    """The grid that `reorient` and then `resample` make, and where it lies.

    Args:
        own: the image's.
        orientation: as for `geometry.reorient`.
        spacing_mm: (z, y, x) after orientation; None keeps the image's own voxels.
    """
    axes, flipped = turning(own, orientation)
    grid = own.turned(orientation)
    grid = grid.at(spacing_mm) if spacing_mm else grid
    places: list[NDArray] = [np.empty(0)] * 3
    for axis, (stored, turned) in enumerate(zip(axes, flipped, strict=True)):
        last = own.size[stored] - 1
        step = grid.spacing[axis] / own.spacing[stored]
        along = (step - 1) / 2 + step * np.arange(grid.size[axis])
        # Beyond the outermost voxels the edge is repeated; rounding noise must not move a voxel
        # off the one that it lies on.
        along = np.clip(np.round(along, 9), 0, last)
        places[2 - stored] = last - along if turned else along
    return Lattice(grid, tuple(axes), tuple(places))


def sample(
    image: sitk.Image,
    orientation: str,
    spacing_mm: Spacing | None,
    *,
    part: Part | None = None,
    box: Part | None = None,
) -> tuple[NDArray[np.float32], sitk.Image]:
    """Voxels along the axes of `orientation`, at a spacing.

    Args:
        orientation, spacing_mm: as for `lattice`.
        part: (z, y, x) voxels of the image to look at, as if the rest were cut off.
        box: (z, y, x) what is wanted of the result.

    Returns:
        (D, H, W) float32, contiguous; and an image of zeros on their grid.

    If this were wrong, every network would see patients that lie as none did in training.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    own = Grid.of(image)
    if part:
        voxels, own = voxels[part], own.cut(part)
    wanted = lattice(own, orientation, spacing_mm)
    wanted = wanted.cut(box) if box else wanted
    found = interpolated(voxels, wanted.places)
    order = [2 - stored for stored in reversed(wanted.axes)]  # stored axes in the order z, y, x
    return np.ascontiguousarray(found.transpose(order)), wanted.grid.image()


def interpolated(voxels: NDArray, places: Sequence[NDArray]) -> NDArray[np.float32]:
    """(Z, Y, X) of any type -> (z, y, x) float32 at the (z,), (y,), (x,) indices given, linearly.

    Indices lie within 0 and the last voxel, rising or falling.
    """
    below = [
        np.minimum(p.astype(int), max(n - 2, 0)) for p, n in zip(places, voxels.shape, strict=True)
    ]
    share = [(p - b).astype(np.float32) for p, b in zip(places, below, strict=True)]

    @lru_cache(maxsize=2)
    def plane(z: int) -> NDArray[np.float32]:
        rows = _mixed(voxels[z], 0, below[1], share[1][:, None])
        return _mixed(rows, 1, below[2], share[2])

    result = np.empty([len(p) for p in places], np.float32)
    for out, z, up in zip(result, below[0].tolist(), share[0]):
        out[...] = plane(z)
        if up:
            out += (plane(z + 1) - out) * up
    return result


def _mixed(plane: NDArray, axis: int, below: NDArray, share: NDArray) -> NDArray[np.float32]:
    low = plane.take(below, axis).astype(np.float32, copy=False)
    if share.any():
        low += (plane.take(below + 1, axis).astype(np.float32, copy=False) - low) * share
    return low
