"""Logits on the network's grid -> labels on the image's own, exactly and without large arrays.

The result equals: interpolate each class trilinearly at the centre of every voxel (repeating the
edge outside), then take the largest, the first of equals. Neither the interpolated logits nor
anything else of classes x native voxels ever exists (see `cells`).
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.cells import fill
from DistillSegLib.errors import DistillSegError, GeometryError
from DistillSegLib.geometry import Part, crop, describe_grid, index_to_patient


def labels_on(
    reference: sitk.Image,
    logits: NDArray[np.float32],
    grid: sitk.Image,
    *,
    stride: int = 1,
    values: NDArray[np.unsignedinteger] | None = None,
    part: Part | None = None,
    winners: NDArray[np.unsignedinteger] | None = None,
) -> sitk.Image:
    """The label of every voxel of `reference`, from logits on another grid of the same patient.

    Args:
        reference: any image on the grid wanted.
        logits: (K, D', H', W').
        grid: an image on the network's input grid (D, H, W), with the axes of `reference` up to
            their order and sense, as `reorient` and `resample` leave them.
        stride: s, with D' = ceil(D/s) and so on. Logit i lies at s*i + (s-1)/2 on `grid`, in the
            middle of the voxels it stands for.
        values: (K,) the label of each class; by default its index.
        part: (z, y, x) what of the reference the network has seen; the rest becomes `values[0]`.
        winners: `largest(logits)`, where it is known already.

    Returns:
        Labels on exactly the reference's grid, of the type of `values` (by default uint8, uint16
        from 257 classes on).

    If this were wrong by half a voxel, every structure would be displaced by that much in every
    patient; if an axis were turned, left and right would be exchanged in the clinician's hands.
    """
    _check_logits(logits)
    if values is None:
        values = np.arange(len(logits), dtype=np.uint8 if len(logits) <= 256 else np.uint16)
    size = reference.GetSize()[::-1]
    part = part or tuple(slice(0, n) for n in size)
    axes, positions = _places(reference, part, logits.shape[1:], grid, stride)
    winners = largest(logits) if winners is None else winners
    covers = tuple(one.stop - one.start for one in part) == size
    labels = np.empty(size, values.dtype) if covers else np.full(size, values[0], values.dtype)
    turned = labels[part].transpose(axes)  # the same memory, seen along the axes of the logits
    if all(np.array_equal(p, np.rint(p)) for p in positions):  # the very lattice: nothing between
        turned[...] = values[winners][np.ix_(*(p.astype(int) for p in positions))]
    else:
        fill(turned, labels, logits, winners, positions, values)
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(reference)
    return image


def map_on(
    reference: sitk.Image,
    values: NDArray[np.float32],
    grid: sitk.Image,
    *,
    stride: int = 1,
    part: Part | None = None,
) -> sitk.Image:
    """A map of the network, such as its confidence, on the reference's grid, trilinearly.

    Args:
        values: (D', H', W'), where `labels_on` has its logits; the edge is repeated.
        part: (z, y, x) what of the reference the network has seen; the rest becomes 0.

    Returns:
        float32 on exactly the reference's grid.
    """
    seen = crop(reference, part) if part else reference
    lattice = sitk.GetImageFromArray(values)
    lattice.SetSpacing([spacing * stride for spacing in grid.GetSpacing()])
    lattice.SetDirection(grid.GetDirection())
    lattice.SetOrigin(grid.TransformContinuousIndexToPhysicalPoint([(stride - 1) / 2] * 3))
    found = sitk.Resample(
        lattice, seen, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear, 0.0,
        sitk.sitkFloat32, True,
    )  # fmt: skip
    if not part:
        return found
    whole = sitk.Image(reference.GetSize(), sitk.sitkFloat32)
    whole.CopyInformation(reference)
    start = [one.start for one in part[::-1]]
    return sitk.Paste(whole, found, found.GetSize(), destinationIndex=start)


def largest(logits: NDArray[np.float32]) -> NDArray[np.unsignedinteger]:
    """The class of the largest logit, the first of equals: np.argmax(logits, axis=0)."""
    # Class by class is faster, and np.argmax would need eight bytes for each voxel.
    winners = np.zeros(logits.shape[1:], np.uint8 if len(logits) < 255 else np.uint16)
    best = logits[0].copy()
    for index, scores in enumerate(logits[1:], start=1):
        np.copyto(winners, index, where=scores > best)
        np.maximum(best, scores, out=best)
    return winners


def _check_logits(logits: NDArray[np.float32]) -> None:
    """Refuse NaN, which is never the largest: an overflow would pass for background."""
    if not np.isfinite([logits.min(), logits.max()]).all():
        strange = np.count_nonzero(~np.isfinite(logits))
        raise DistillSegError(
            f"The network gave {strange} of {logits.size} numbers that are not finite; it does not "
            "cope with this image. Check the image's values, or use another model or engine."
        )


def _places(
    reference: sitk.Image, part: Part, shape: tuple[int, ...], grid: sitk.Image, stride: int
) -> tuple[list[int], list[NDArray]]:
    """For each axis of the logits, z to x: which axis of the reference runs along it, and where.

    Returns:
        The axes of the reference array, and along each the places of the voxels of `part` as
        indices of the logits, kept within the first and the last.
    """
    expected = tuple(-(-n // stride) for n in grid.GetSize()[::-1])
    if shape != expected:
        raise GeometryError(
            f"The logits have the shape {shape}, but stride {stride} on a grid of "
            f"{describe_grid(grid)} makes {expected}; check the model's declared output stride."
        )
    back = np.linalg.inv(index_to_patient(grid))
    # Indices of the logits per voxel of the reference, x first.
    step = back @ index_to_patient(reference) / stride
    offset = back @ np.subtract(reference.GetOrigin(), grid.GetOrigin())
    first = (offset - (stride - 1) / 2) / stride
    axes = np.abs(step).argmax(axis=1)
    size = np.array(reference.GetSize())
    stray = np.abs(step) * (size - 1)
    stray[[0, 1, 2], axes] = 0
    if sorted(axes) != [0, 1, 2] or stray.max() > 1e-3:
        raise GeometryError(
            f"The axes of {describe_grid(reference)} and {describe_grid(grid)} are turned against "
            "each other; resample one image onto the other first."
        )
    positions = []
    for axis in (2, 1, 0):
        seen = part[2 - axes[axis]]
        along = first[axis] + step[axis, axes[axis]] * np.arange(seen.start, seen.stop)
        # Rounding noise must not move a voxel off a lattice point that it lies on.
        positions.append(np.clip(np.round(along, 9), 0, shape[2 - axis] - 1))
    return [2 - axes[axis] for axis in (2, 1, 0)], positions
