"""How far a network sees, found by trying.

Some voxels of noise are exchanged for others; the logits that change tell how far the influence
reaches. The result is what a slab needs of its neighbours to give the logits of the whole volume.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from DistillSegLib.windows import Predict, Shape, Size, per_axis

LONGEST = 512  # voxels; a network that sees farther is taken to see everything
TRIALS = 3  # of other noise each: a rectifier may hide an influence once


def measure_reach(
    predict: Predict, *, channels: int, multiple: Size, minimum: Size, stride: int
) -> Shape | None:
    """(z, y, x) voxels of input, rounded up to `multiple`; None where it has no end.

    Args:
        predict: (1, C, d, h, w) float32 -> logits (1, K, d/s, h/s, w/s); the same for the same.
        multiple, minimum: of the sizes that the network takes.
        stride: s.
    """
    least = [
        -(-max(low, each) // each) * each
        for each, low in zip(per_axis(multiple), per_axis(minimum), strict=True)
    ]
    reach = []
    for axis in range(3):
        found = _along(predict, axis, least, channels, per_axis(multiple)[axis], stride)
        if found is None:
            return None
        reach.append(found)
    return tuple(reach)


def _along(
    predict: Predict, axis: int, least: Sequence[int], channels: int, step: int, stride: int
) -> int | None:
    size = max(least[axis], 4 * step)
    while size <= max(LONGEST, 4 * step):
        shape = [size if i == axis else n for i, n in enumerate(least)]
        start = size // 2 // step * step
        changed = np.zeros(size // stride, bool)
        for seed in range(TRIALS):
            changed |= _changed(
                predict, axis, (1, channels, *shape), slice(start, start + step), seed
            )
        places = np.flatnonzero(changed) * stride
        if not len(places):
            return 0
        first, last = places[0], places[-1] + stride
        if first > 0 and last < size:
            return int(-(-max(start - first, last - start - step, 0) // step) * step)
        size *= 2
    return None


def _changed(
    predict: Predict, axis: int, shape: tuple[int, ...], part: slice, seed: int
) -> NDArray[np.bool_]:
    """Whether any logit changes, along one axis, when a part of the input is exchanged."""
    random = np.random.default_rng(seed)
    before = random.normal(size=shape).astype(np.float32)
    after = before.copy()
    where = tuple(part if i == axis + 2 else slice(None) for i in range(5))
    after[where] = 3 * random.normal(size=after[where].shape)
    others = tuple(i for i in range(5) if i != axis + 2)
    return (predict(before) != predict(after)).any(axis=others)
