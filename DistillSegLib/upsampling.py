"""Logits on the network's grid -> labels on the image's own, exactly and without large arrays.

The result equals: interpolate each class trilinearly at the centre of every voxel (repeating the
edge outside), then take the largest, the first of equals. Neither the interpolated logits nor
anything else of classes x native voxels ever exists. Between eight neighbouring logits, a *cell*,

1. a class that is largest at all eight corners is largest everywhere between them, since every
   mixture keeps the order: its label is copied, whole rows at a time;
2. elsewhere only some classes can win: one that is below another at all corners is below it
   everywhere between them. Most cells keep two;
3. those are interpolated, cells of one shape together, so that each step is one long array
   operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.errors import DistillSegError, GeometryError
from DistillSegLib.geometry import Part, crop, describe_grid, index_to_patient

CHUNK = 2**16  # native voxels interpolated at a time: what stays in a core's cache
MOST_KEYS = 2**20  # that a table is made for
PAIRS = 2**17  # of cells and classes that are compared at a time


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
        _fill(turned, labels, logits, winners, positions, values)
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


@dataclass(frozen=True)
class _Axis:
    """Where the native voxels along one axis lie among the logits; ascending.

    Attributes:
        below: (n,) the logit at or below each voxel, which is also the number of its cell.
        share: (n,) its share of the way to the next, 0 to 1, float32.
        starts: (cells + 1,) the first voxel of each cell.
        step: to the next corner of a cell; 0 where there is one logit only.
    """

    below: NDArray
    share: NDArray[np.float32]
    starts: NDArray
    step: int

    @classmethod
    def at(cls, positions: NDArray, logits: int) -> _Axis:
        cells = max(logits - 1, 1)
        below = np.minimum(positions.astype(int), cells - 1)
        starts = np.searchsorted(below, np.arange(cells + 1))
        return cls(below, (positions - below).astype(np.float32), starts, int(logits > 1))

    @property
    def runs(self) -> NDArray:
        """(cells,) native voxels in each cell."""
        return np.diff(self.starts)


def _fill(
    turned: NDArray,
    labels: NDArray,
    logits: NDArray[np.float32],
    winners: NDArray,
    positions: Sequence[NDArray],
    values: NDArray,
) -> None:
    """Write the labels at `positions` (along each axis) into `turned`, a view into `labels`."""
    falling = [len(p) > 1 and p[0] > p[-1] for p in positions]
    turned = turned[tuple(slice(None, None, -1 if down else 1) for down in falling)]
    positions = [p[::-1] if down else p for p, down in zip(positions, falling, strict=True)]
    axes = [_Axis.at(*pair) for pair in zip(positions, winners.shape, strict=True)]
    low = _over_corners(winners, np.minimum)
    mixed = low != _over_corners(winners, np.maximum)
    _copy(turned, values[low], axes)
    for axis, one in enumerate(axes):  # a cell between two native voxels holds none
        mixed &= np.expand_dims(one.runs > 0, [i for i in range(3) if i != axis])
    writer = _Writer(turned, labels, logits, axes, values)
    for cells in _alike(np.stack(np.nonzero(mixed)), logits, winners, axes):
        writer.write(cells)


def _over_corners(values: NDArray, choose: np.ufunc) -> NDArray:
    """(D, H, W) -> for each cell, the least or the largest of its (up to) eight corners."""
    for axis in range(3):
        if values.shape[axis] > 1:
            before = (slice(None),) * axis
            values = choose(values[(*before, slice(-1))], values[(*before, slice(1, None))])
    return values


def _copy(labels: NDArray, cells: NDArray, axes: Sequence[_Axis]) -> None:
    """One value for each cell, copied to all its voxels."""
    z, y, x = axes
    for plane, start, stop in zip(cells, z.starts, z.starts[1:]):
        if stop > start:
            labels[start:stop] = plane.take(x.below, axis=1).take(y.below, axis=0)


@dataclass(frozen=True)
class _Cells:
    """Cells that hold equally many voxels along each axis, and equally many classes that may win.

    Attributes:
        places: (3, n) cell indices, z, y, x.
        classes: (m, n) of each cell, ascending.
    """

    places: NDArray
    classes: NDArray


def _alike(
    mixed: NDArray, logits: NDArray[np.float32], winners: NDArray, axes: Sequence[_Axis]
) -> Iterator[_Cells]:
    """(3, n) mixed cells, in groups that are interpolated together, CHUNK voxels at most each."""
    if not mixed.size:
        return
    counts, classes = np.empty(mixed.shape[1], np.int16), []
    step = PAIRS // len(logits) + 1
    for first in range(0, mixed.shape[1], step):
        part = slice(first, first + step)
        corners = _corners(mixed[:, part], winners.shape, axes)
        cells, found = _candidates(corners, logits, winners)
        counts[part] = np.bincount(cells, minlength=corners.shape[1])
        classes.append(found.astype(np.int16))
    runs = [axis.runs[place] for axis, place in zip(axes, mixed, strict=True)]
    yield from _groups(mixed, runs, counts, np.concatenate(classes))


def _candidates(
    corners: NDArray, logits: NDArray[np.float32], winners: NDArray
) -> tuple[NDArray, NDArray]:
    """(8, n) corners -> pairs of a cell and a class that may win there, cell by cell, ascending.

    The leader of a cell is the winner at its first corner. Another class that is nowhere as high
    as the leader's lowest corner, or is below it at every corner, is below it throughout.
    """
    flat, size = logits.reshape(-1), winners.size
    leaders = winners.reshape(-1).take(corners[0]).astype(np.intp) * size
    best = flat.take(corners + leaders)
    lowest, may_win = best.min(axis=0), np.empty((len(logits), corners.shape[1]), bool)
    for scores, hope in zip(logits, may_win, strict=True):
        np.greater_equal(scores.take(corners).max(axis=0), lowest, out=hope)
    cells, classes = np.nonzero(may_win.T)
    ahead, first = np.zeros(len(cells), bool), classes * size
    for corner, leading in zip(corners, best, strict=True):
        ahead |= flat.take(corner.take(cells) + first) >= leading.take(cells)
    return cells[ahead], classes[ahead]


def _groups(
    places: NDArray, runs: Sequence[NDArray], counts: NDArray, classes: NDArray
) -> Iterator[_Cells]:
    """Cells together that hold equally many voxels along each axis and equally many classes.

    Args:
        runs: (n,) voxels along z, y, x; counts: (n,) classes.
        classes: those of the first cell, then those of the second, and so on.
    """
    first_class = np.cumsum(counts, dtype=np.intp) - counts
    key = np.zeros(len(counts), np.intp)
    for each in (*runs, counts):
        key = key * (int(each.max()) + 1) + each
    sorting = np.argsort(_small(key), kind="stable")
    bounds = np.flatnonzero(np.diff(key[sorting])) + 1
    for start, stop in zip([0, *bounds], [*bounds, len(key)]):
        cell = sorting[start]
        voxels, count = prod(int(run[cell]) for run in runs), int(counts[cell])
        step = max(CHUNK // voxels, 1)
        for first in range(start, stop, step):
            chosen = sorting[first : min(first + step, stop)]
            those = classes[first_class[chosen] + np.arange(count)[:, None]]
            yield _Cells(places[:, chosen], those.astype(np.intp))


def _small(key: NDArray[np.intp]) -> NDArray[np.integer]:
    """The same order in small numbers, which sort several times faster; there are few kinds."""
    if key.max() >= MOST_KEYS:  # very few logits for very many voxels
        return np.unique(key, return_inverse=True)[1]
    kinds = np.flatnonzero(np.bincount(key))
    small = np.zeros(kinds[-1] + 1, np.min_scalar_type(len(kinds)))
    small[kinds] = np.arange(len(kinds))
    return small[key]


def _corners(places: NDArray, shape: Sequence[int], axes: Sequence[_Axis]) -> NDArray:
    """(8, n) where the corners of cells lie in a flat map of `shape`, z before y before x."""
    _, height, width = shape
    base = (places[0] * height + places[1]) * width + places[2]
    steps = [axis.step * pace for axis, pace in zip(axes, (height * width, width, 1), strict=True)]
    offsets = [z * steps[0] + y * steps[1] + x * steps[2]
               for z in (0, 1) for y in (0, 1) for x in (0, 1)]  # fmt: skip
    return base + np.array(offsets)[:, None]


class _Writer:
    """Interpolates the classes of cells and writes the labels of their voxels."""

    def __init__(
        self,
        turned: NDArray,
        labels: NDArray,
        logits: NDArray[np.float32],
        axes: Sequence[_Axis],
        values: NDArray,
    ):
        self._flat = labels.reshape(-1)
        item = labels.itemsize
        self._first = (turned.ctypes.data - labels.ctypes.data) // item
        self._paces = [pace // item for pace in turned.strides]
        self._shape, self._logits = logits.shape[1:], logits.reshape(-1)
        self._axes, self._values = axes, values

    def write(self, cells: _Cells) -> None:
        corners = _corners(cells.places, self._shape, self._axes)
        runs = [
            axis.starts[place] + np.arange(axis.runs[place[0]])[:, None]
            for axis, place in zip(self._axes, cells.places, strict=True)
        ]  # of each axis: (r, n) native voxels
        shares = [axis.share[run] for axis, run in zip(self._axes, runs, strict=True)]
        label = self._largest(cells.classes, corners, shares)
        z, y, x = (run * pace for run, pace in zip(runs, self._paces, strict=True))
        self._flat[(z + self._first)[:, None, None] + y[None, :, None] + x[None, None]] = label

    def _largest(self, classes: NDArray, corners: NDArray, shares: Sequence[NDArray]) -> NDArray:
        """(m, n) classes, (8, n) corners, shares (r, n) of three axes -> (rz, ry, rx, n) labels.

        Each class is compared through its difference from the first, which is interpolated.
        """
        size, values = prod(self._shape), self._values
        base = self._logits.take(corners + classes[0] * size)
        label, best = values[classes[0]], np.float32(0)
        for rest, one in reversed(list(enumerate(classes[:0:-1]))):
            ahead = self._logits.take(corners + one * size) - base
            ahead = ahead.reshape(2, 2, 2, -1)
            for axis, share in enumerate(shares):
                low, high = (ahead.take([end], axis) for end in (0, 1))
                shape = [1, 1, 1, share.shape[1]]
                shape[axis] = len(share)
                ahead = (high - low) * share.reshape(shape)
                ahead += low
            label = np.where(ahead > best, values[one], label)
            if rest:
                best = np.maximum(ahead, best, out=ahead)
        return np.broadcast_to(label, [len(share) for share in shares] + [len(base[0])])
