"""Space: orient, resample, and put results back.

An image's voxels mean nothing without their place in the patient. If a function here were wrong,
a tumour would be drawn in the other kidney, a left and a right hippocampus would change places,
or a contour would lie a slice above the organ, and nothing in the picture would look odd. So every
function goes through the full index-to-patient matrix and never through a guess by sign.

SimpleITK's (x, y, z) is turned round to our (z, y, x) in this file and nowhere else. Its world is
LPS: x to the patient's left, y to posterior, z to superior.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.errors import DistillSegError, GeometryError, ImageError

Spacing = tuple[float, float, float]  # mm, (z, y, x)

SLICES = "slices"  # instead of an orientation's three letters
CLEARLY_COARSER = 1.5  # times the other spacings: the axis across a stack's slices
MOST_VOXELS = 2**30  # 4 GiB of float32; a whole body at 1 mm has half as many


class Box(Protocol):
    """Anything that knows which voxels of an image it holds: a region of interest, for example."""

    def index_box(self, image: sitk.Image) -> tuple[slice, slice, slice]:
        """The voxels (z, y, x)."""


def check_image(image: sitk.Image) -> None:
    """Refuse what has no place in the patient: ImageError for voxels, GeometryError for the grid.

    An image is three-dimensional (see `as_volume` for two) with one real number per voxel, at
    least one voxel, a positive spacing and three independent axes. Left-handed and sheared
    directions (a mirrored scan, a tilted gantry) are accepted; all of this file honours them.
    """
    kind = image.GetPixelIDTypeAsString()
    if image.GetDimension() != 3:
        raise ImageError(
            f"The image has {image.GetDimension()} dimensions ({_by(image.GetSize())}); one volume "
            "of three is needed. Save one time point, or the whole stack of slices, as a file."
        )
    if any(word in kind for word in ("vector", "complex", "label")):
        raise ImageError(
            f"The image holds '{kind}' values ({image.GetNumberOfComponentsPerPixel()} per voxel); "
            "one real number per voxel is needed. Save one channel as a file of its own."
        )
    if 0 in image.GetSize():
        raise ImageError(f"The image is empty ({_by(image.GetSize())} voxels); export it again.")
    if not all(np.isfinite(s) and s > 0 for s in image.GetSpacing()):
        raise GeometryError(
            f"The image's spacing is {_by(image.GetSpacing())} mm; each must be above zero. Export "
            "the image again or correct its header."
        )
    if not np.all(np.isfinite([*image.GetOrigin(), *image.GetDirection()])):
        raise GeometryError(
            f"The image's origin {image.GetOrigin()} or direction {image.GetDirection()} is not a "
            "number; export the image again or correct its header."
        )
    if abs(np.linalg.det(_direction(image))) < 1e-3:
        raise GeometryError(
            f"The image's axes {image.GetDirection()} do not span a volume; export the image again "
            "or correct its header."
        )


def as_volume(image: sitk.Image) -> sitk.Image:
    """A 2-D image as a volume of one slice, 1 mm thick, in the plane z = 0; others as they are."""
    return sitk.JoinSeries([image]) if image.GetDimension() == 2 else image


def describe_grid(image: sitk.Image) -> str:
    """A grid for people, x first: "35x50x36 voxels of 1x1x1 mm, LPS" (or "…, oblique LPS")."""
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    aligned = np.isclose(np.abs(_direction(image)).max(axis=0), 1, atol=1e-4).all()
    return (
        f"{_by(image.GetSize())} voxels of {_by(image.GetSpacing())} mm, "
        f"{'' if aligned else 'oblique '}{code}"
    )


def spacing_of(image: sitk.Image) -> Spacing:
    """The spacing in mm as (z, y, x), which is how arrays are ordered."""
    return image.GetSpacing()[::-1]


def same_grid(a: sitk.Image, b: sitk.Image, *, tolerance_mm: float = 1e-3) -> bool:
    """Whether voxels of equal index lie at the same place in the patient, to `tolerance_mm`.

    If this were wrong, two segmentations would be compared voxel by voxel that belong to different
    places, and a shift of the patient would be reported as a difference of the models.
    """
    if a.GetSize() != b.GetSize():
        return False
    # Two affine maps agree on a box if they agree at four corners that span it. Outer corners, so
    # that an axis of one voxel counts too.
    size = np.array(a.GetSize())
    corners = np.vstack([np.zeros(3), np.diag(size)]) - 0.5
    apart = _positions(a, corners) - _positions(b, corners)
    return bool(np.linalg.norm(apart, axis=1).max() <= tolerance_mm)


def reorient(image: sitk.Image, code: str) -> sitk.Image:
    """The same voxels at the same places, stored in another order: axes permuted and flipped only.

    Args:
        code: where the x, y and z axes lead, nearest: "LPS" is left, posterior, superior. `SLICES`:
            z leads across the slices, x and y as they are stored.

    If this were wrong, the network would see patients lying as none did in training, and return a
    left organ as the right one.
    """
    if code != SLICES:
        return sitk.DICOMOrient(image, code)
    across = _across_slices(image)
    return sitk.PermuteAxes(image, [axis for axis in range(3) if axis != across] + [across])


def _across_slices(image: sitk.Image) -> int:
    """The axis, x first, along which voxels are longest; the last one where none stands out.

    A stack along an organ's own axes, such as the short axis of the heart, lies obliquely: the
    nearest of the patient's axes may be any. A scan stored in another order is still told by this.
    """
    spacing = np.array(image.GetSpacing())
    across = int(spacing.argmax())
    return across if spacing[across] > CLEARLY_COARSER * np.delete(spacing, across).max() else 2


def resample(image: sitk.Image, spacing_mm: Spacing, *, linear: bool) -> sitk.Image:
    """The image at another spacing, covering the same box of the patient (its outer edges).

    The number of voxels is rounded, to at least one per axis; the spacing is then that which fits
    the box exactly, so it differs slightly from `spacing_mm`. Directions are kept.

    Args:
        spacing_mm: (z, y, x).
        linear: True for images (the result is float32), False for label maps (nearest voxel, same
            pixel type). Values beyond the outermost voxel centres repeat the edge.

    If voxel centres rather than edges were kept, everything would shrink towards a corner: a thick
    slice of 5 mm made 1 mm moves contours by 2 mm.
    """
    extent = np.array(image.GetSize()) * image.GetSpacing()  # mm, x first
    size = np.maximum(np.rint(extent / spacing_mm[::-1]), 1)
    if size.prod() > MOST_VOXELS:
        raise GeometryError(
            f"At {_by(spacing_mm[::-1])} mm the image ({describe_grid(image)}) would have "
            f"{size.prod():.2g} voxels; check its spacing, or cut out the region of interest."
        )
    size = size.astype(int)
    spacing = extent / size
    # The first voxel's centre, as an index of the old image: half a new voxel from the old edge.
    first = (spacing / image.GetSpacing() - 1) / 2
    grid = sitk.Image(size.tolist(), sitk.sitkUInt8)
    grid.SetOrigin(_positions(image, first[None])[0].tolist())
    grid.SetSpacing(spacing.tolist())
    grid.SetDirection(image.GetDirection())
    return _interpolate(image, grid, linear=linear, extrapolate=True)


def on_grid_of(image: sitk.Image, reference: sitk.Image, *, linear: bool) -> sitk.Image:
    """The image interpolated at the voxel centres of `reference`, where they lie in the patient.

    Args:
        linear: True for images (the result is float32; outside the image its smallest value),
            False for label maps (nearest voxel, same pixel type; outside 0).

    If this were wrong, the channels of one patient would be laid over each other displaced, and the
    network would see a lesion beside its own outline.
    """
    return _interpolate(image, reference, linear=linear, extrapolate=False)


def crop(image: sitk.Image, region: Box) -> sitk.Image:
    """The part of the image that the region holds, whole voxels, where they were in the patient."""
    box = region.index_box(image)[::-1]
    return sitk.RegionOfInterest(
        image, [part.stop - part.start for part in box], [part.start for part in box]
    )


def paste(labelmap: sitk.Image, reference: sitk.Image) -> sitk.Image:
    """A label map of a crop, put back on the grid of the whole `reference`; 0 elsewhere.

    Raises GeometryError unless the label map's voxels are voxels of the reference. If they were put
    one voxel beside their place, every contour would be off by as much, with nothing to show it.
    """
    size, index = labelmap.GetSize(), reference.TransformPhysicalPointToIndex(labelmap.GetOrigin())
    inside = all(i >= 0 and i + n <= m for i, n, m in zip(index, size, reference.GetSize()))
    if not inside or not same_grid(labelmap, sitk.RegionOfInterest(reference, size, index)):
        raise GeometryError(
            f"The label map ({describe_grid(labelmap)}) is no part of the image "
            f"({describe_grid(reference)}); crop the image itself, without resampling."
        )
    whole = sitk.Image(reference.GetSize(), labelmap.GetPixelID())
    whole.CopyInformation(reference)
    return sitk.Paste(whole, labelmap, size, destinationIndex=index)


def labels_on(
    reference: sitk.Image, logits: NDArray[np.float32], grid: sitk.Image, *, stride: int = 1
) -> sitk.Image:
    """The class of every voxel of `reference`, from logits on another grid of the same patient.

    The result equals: interpolate each class trilinearly at the voxel's centre (repeating the edge
    outside), then take the largest, the first of equals. But where the eight logits around a voxel
    agree on the class, every mixture of them does too, so it is copied; only the others are
    interpolated, slice by slice. No array of classes by native voxels ever exists.

    Args:
        reference: any image on the grid wanted.
        logits: (K, D', H', W').
        grid: an image on the network's input grid (D, H, W), with the axes of `reference` up to
            their order and sense, as `reorient` and `resample` leave them.
        stride: s, with D' = ceil(D/s) and so on. Logit i lies at s*i + (s-1)/2 on `grid`, in the
            middle of the voxels it stands for.

    Returns:
        Class indices on exactly the reference's grid, uint8 (uint16 from 255 classes on).

    If this were wrong by half a voxel, every structure would be displaced by that much in every
    patient; if an axis were turned, left and right would be exchanged in the clinician's hands.
    """
    _check_logits(logits)
    axes, positions = _places(reference, logits.shape[1:], grid, stride)
    winners = _largest(logits)
    labels = np.empty(reference.GetSize()[::-1], winners.dtype)
    turned = labels.transpose(axes)  # the same memory, seen along the axes of the logits
    if all(np.array_equal(p, np.rint(p)) for p in positions):  # the very lattice: nothing between
        turned[...] = winners[np.ix_(*(p.astype(int) for p in positions))]
    else:
        _fill(turned, logits, winners, positions)
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(reference)
    return image


def _check_logits(logits: NDArray[np.float32]) -> None:
    """Refuse NaN, which is never the largest: an overflow would pass for background."""
    if not np.isfinite([logits.min(), logits.max()]).all():
        strange = np.count_nonzero(~np.isfinite(logits))
        raise DistillSegError(
            f"The network gave {strange} of {logits.size} numbers that are not finite; it does not "
            "cope with this image. Check the image's values, or use another model or engine."
        )


def _places(
    reference: sitk.Image, shape: tuple[int, ...], grid: sitk.Image, stride: int
) -> tuple[list[int], list[NDArray]]:
    """For each axis of the logits, z to x: which axis of the reference runs along it, and where.

    Returns:
        The axes of the reference array, and along each the voxels' places as indices of the logits,
        kept within the first and the last.
    """
    expected = tuple(-(-n // stride) for n in grid.GetSize()[::-1])
    if shape != expected:
        raise GeometryError(
            f"The logits have the shape {shape}, but stride {stride} on a grid of "
            f"{describe_grid(grid)} makes {expected}; check the model's declared output stride."
        )
    back = np.linalg.inv(_index_to_patient(grid))
    step = (
        back @ _index_to_patient(reference) / stride
    )  # logits indices per reference voxel, x first
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
        along = first[axis] + step[axis, axes[axis]] * np.arange(size[axes[axis]])
        # Rounding noise must not move a voxel off a lattice point that it lies on.
        positions.append(np.clip(np.round(along, 9), 0, shape[2 - axis] - 1))
    return [2 - axes[axis] for axis in (2, 1, 0)], positions


def _largest(logits: NDArray[np.float32]) -> NDArray[np.unsignedinteger]:
    """The class of the largest logit, the first of equals: np.argmax(logits, axis=0)."""
    # Class by class is faster, and np.argmax would need eight bytes for each voxel.
    winners = np.zeros(logits.shape[1:], np.uint8 if len(logits) < 255 else np.uint16)
    best = logits[0].copy()
    for index, scores in enumerate(logits[1:], start=1):
        np.copyto(winners, index, where=scores > best)
        np.maximum(best, scores, out=best)
    return winners


def _fill(
    labels: NDArray, logits: NDArray[np.float32], winners: NDArray, positions: Sequence[NDArray]
) -> None:
    """Write the classes at `positions` (one array for each axis) into `labels`, plane by plane."""
    mixed = np.iinfo(winners.dtype).max
    cells = _cells(winners, mixed)
    # Voxel -> the lattice points below and above it, and its share of the way between them.
    below = [np.minimum(p.astype(int), n - 1) for p, n in zip(positions, cells.shape, strict=True)]
    above = [np.minimum(b + 1, n - 1) for b, n in zip(below, winners.shape, strict=True)]
    share = [(p - b).astype(np.float32) for p, b in zip(positions, below, strict=True)]
    width = winners.shape[2]
    for z, plane_below, plane_above, up in zip(range(len(labels)), below[0], above[0], share[0]):
        plane = cells[plane_below].take(below[1], axis=0).take(below[2], axis=1)
        y, x = np.nonzero(plane == mixed)
        if len(y):
            scores = (1 - up) * logits[:, plane_below] + up * logits[:, plane_above]
            y_share, x_share = share[1][y], share[2][x]
            plane[y, x] = _largest_between(
                scores.reshape(len(logits), -1),
                [rows[y] * width + columns[x] for rows in (below[1], above[1])
                 for columns in (below[2], above[2])],
                [rows * columns for rows in (1 - y_share, y_share)
                 for columns in (1 - x_share, x_share)],
            )  # fmt: skip
        labels[z] = plane


def _cells(winners: NDArray, mixed: int) -> NDArray:
    """The class on which the (up to) eight corners of each lattice cell agree, or `mixed`."""
    low = high = winners
    for axis in range(3):
        if winners.shape[axis] > 1:
            ends = np.arange(winners.shape[axis] - 1)
            low = np.minimum(low.take(ends, axis), low.take(ends + 1, axis))
            high = np.maximum(high.take(ends, axis), high.take(ends + 1, axis))
    return np.where(low == high, low, winners.dtype.type(mixed))


def _largest_between(
    scores: NDArray[np.float32], corners: Sequence[NDArray], weights: Sequence[NDArray]
) -> NDArray:
    """(K, P) scores, four corners and their weights, (n,) each -> (n,) classes of largest mean."""
    winners = np.zeros(len(corners[0]), np.uint16)
    best = np.full(len(corners[0]), -np.inf, np.float32)
    for index, row in enumerate(scores):
        value = sum(row.take(corner) * weight for corner, weight in zip(corners, weights))
        np.copyto(winners, index, where=value > best)
        np.maximum(best, value, out=best)
    return winners


def _interpolate(
    image: sitk.Image, grid: sitk.Image, *, linear: bool, extrapolate: bool
) -> sitk.Image:
    smallest = float(sitk.GetArrayViewFromImage(image).min()) if linear and not extrapolate else 0.0
    return sitk.Resample(
        image,
        grid,
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkLinear if linear else sitk.sitkNearestNeighbor,
        smallest,
        sitk.sitkFloat32 if linear else image.GetPixelID(),
        extrapolate,
    )


def _by(numbers) -> str:
    return "x".join(f"{number:.4g}" for number in numbers)


def _direction(image: sitk.Image) -> np.ndarray:
    return np.array(image.GetDirection()).reshape(3, 3)


def _index_to_patient(image: sitk.Image) -> np.ndarray:
    """(3, 3): columns are the steps in mm, LPS, of one voxel along x, y and z."""
    return _direction(image) * image.GetSpacing()


def _positions(image: sitk.Image, indices: np.ndarray) -> np.ndarray:
    """(n, 3) continuous indices (x, y, z) -> (n, 3) positions in mm, LPS."""
    return indices @ _index_to_patient(image).T + image.GetOrigin()
