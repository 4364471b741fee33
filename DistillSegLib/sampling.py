"""An image's voxels where a network wants them: oriented and interpolated in one step.

The same numbers as `reorient` and then `resample` (linear) give, without an oriented copy of the
whole image, and several times faster where the network's grid is coarser: each slice is first
reduced in its plane, and only then are neighbouring slices mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.geometry import Grid, Part, Spacing, turning


def sample(
    image: sitk.Image, orientation: str, spacing_mm: Spacing | None, *, part: Part | None = None
) -> tuple[NDArray[np.float32], sitk.Image]:
    """Voxels along the axes of `orientation`, at a spacing.

    Args:
        orientation: as for `geometry.reorient`.
        spacing_mm: (z, y, x) after orientation; None keeps the image's own voxels.
        part: (z, y, x) voxels of the image to look at, as if the rest were cut off.

    Returns:
        (D, H, W) float32, contiguous; and an image of zeros on their grid.

    If this were wrong, every network would see patients that lie as none did in training.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    part = part or tuple(slice(0, n) for n in voxels.shape)
    voxels = voxels[part]
    own = Grid.of(image).cut(part)
    axes, flipped = turning(own, orientation)
    grid = own.turned(orientation)
    grid = grid.at(spacing_mm) if spacing_mm else grid
    places: list[NDArray] = [np.empty(0)] * 3  # along each stored axis, as indices of the image
    for axis, (stored, turned) in enumerate(zip(axes, flipped, strict=True)):
        last = own.size[stored] - 1
        step = grid.spacing[axis] / own.spacing[stored]
        along = (step - 1) / 2 + step * np.arange(grid.size[axis])
        # Beyond the outermost voxels the edge is repeated; rounding noise must not move a voxel
        # off the one that it lies on.
        along = np.clip(np.round(along, 9), 0, last)
        places[2 - stored] = last - along if turned else along
    voxels = interpolated(voxels, places)
    order = [2 - stored for stored in reversed(axes)]  # stored axes in the order z, y, x
    return np.ascontiguousarray(voxels.transpose(order)), grid.image()


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
