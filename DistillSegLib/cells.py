"""Cells between eight neighbouring logits: the labels of their voxels, class by class that may win.

1. A class that is largest at all eight corners is largest everywhere between them, since every
   mixture keeps the order: its label is copied, whole rows at a time.
2. Elsewhere only some classes can win: one that is below another at all corners is below it
   everywhere between them. Most cells keep two.
3. Those are interpolated, cells of one shape together, so that each step is one long array
   operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

CHUNK = 2**16  # native voxels interpolated at a time: what stays in a core's cache
MOST_KEYS = 2**20  # that a table is made for
PAIRS = 2**17  # of cells and classes that are compared at a time


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


def fill(
    turned: NDArray,
    labels: NDArray,
    logits: NDArray[np.float32],
    winners: NDArray,
    positions: Sequence[NDArray],
    values: NDArray,
) -> None:
    """Write the labels at some positions among the logits.

    Args:
        turned: (d, h, w) where they are written: a view into `labels`, its axes those of the
            logits, rising or falling.
        labels: contiguous; the rest of it stays.
        logits: (K, D, H, W); winners: (D, H, W) the class of the largest.
        positions: along z, y and x of `turned`, as indices of the logits, within the first and the
            last.
        values: (K,) the label of each class.
    """
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
