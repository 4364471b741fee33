"""Label maps by their runs: stretches of equal neighbours along x, of which they have few.

What is asked of every voxel is asked of every run instead, for all labels in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from DistillSegLib.boxes import Box


def counts_by_value(voxels: NDArray[np.integer]) -> NDArray[np.int64]:
    """(D, H, W) of 0 … 65535 -> (65536,) how many voxels have each value."""
    counts = np.zeros(65536, np.int64)
    for plane in voxels:
        values, starts, ends = _runs(plane)
        found = np.bincount(values, ends - starts)
        counts[: len(found)] += found.astype(np.int64)
    return counts


def boxes_by_value(voxels: NDArray[np.integer]) -> dict[int, Box]:
    """(D, H, W) of 0 … 65535 -> the smallest box (z, y, x) that holds each value but 0."""
    found = [np.stack(each) for each in _extents(voxels)]
    if not found:
        return {}
    value, *sides = np.concatenate(found, axis=1)
    order = np.argsort(value, kind="stable")
    value, sides = value[order], [side[order] for side in sides]
    first = np.flatnonzero(np.diff(value, prepend=-1))
    low, high = (
        [choose.reduceat(side, first) for side in sides[start::2]]
        for choose, start in ((np.minimum, 0), (np.maximum, 1))
    )
    return {
        int(one): tuple(slice(int(a[i]), int(b[i])) for a, b in zip(low, high, strict=True))
        for i, one in enumerate(value[first])
    }


def _extents(voxels: NDArray[np.integer]) -> Iterator[tuple[NDArray, ...]]:
    """For each plane that is not empty, of each run: value, then start and end along z, y, x."""
    width = voxels.shape[2]
    for z, plane in enumerate(voxels):
        values, starts, ends = _runs(plane)
        some = np.flatnonzero(values)
        if not len(some):
            continue
        values, starts, last = values[some].astype(np.intp), starts[some], ends[some] - 1
        y, bottom = starts // width, last // width
        # A run that goes on into the next row touches both sides.
        x = np.where(y == bottom, starts % width, 0)
        right = np.where(y == bottom, last % width, width - 1)
        here = np.full(len(some), z)
        yield values, here, here + 1, y, bottom + 1, x, right + 1


def _runs(plane: NDArray[np.integer]) -> tuple[NDArray, NDArray, NDArray]:
    """(H, W) -> of each run its value, and where it starts and ends in the flat plane."""
    flat = plane.ravel()
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
    return flat[starts], starts, np.append(starts[1:], flat.size)
