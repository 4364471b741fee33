"""How sure a network was: the probability that it gave to the class it chose.

The probability is that of the softmax at a temperature T that the package states,

    p = exp(max l / T) / sum exp(l / T),

between 1/K and 1. Trained networks are surer than they are right; T is fitted to that on export
(see `export.calibration`) and changes no label. p remains the network's own opinion: of a single
case it says little, since a network may be sure and wrong.

Reference: Guo et al., ICML 2017, arXiv:1706.04599.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import gcd

import numpy as np
from numpy.typing import NDArray

MOST = 2**12  # places in a class that its mean is taken over, evenly spread; its error is below 1 %


def mean_by_class(
    logits: NDArray[np.float32],
    winners: NDArray[np.integer],
    *,
    temperature: float = 1.0,
    stride: int = 1,
) -> dict[int, float]:
    """The mean probability in the cells of each class that was chosen somewhere, 0 excepted.

    A cell is what one logit stands for: s x s x s voxels of the network's input, at which logits
    are interpolated trilinearly. Between a cell that is sure of one class and a neighbour that is
    sure of another lies a border that is not; logits alone would pass over it.

    Args:
        logits: (K, D, H, W).
        winners: (D, H, W) the class of the largest logit.
        stride: s.
    """
    flat = winners.ravel()
    cells = np.flatnonzero(flat)
    classes = flat[cells]
    order = np.argsort(classes, kind="stable")
    ends = np.cumsum(np.bincount(classes, minlength=len(logits)))
    means = {}
    for index, (start, stop) in enumerate(pairwise(ends), start=1):
        if stop > start:
            chosen = _spread(int(stop - start) * stride**3, stride)
            among = cells[order[start + chosen // stride**3]]
            found = _inside(logits, among, chosen % stride**3, stride)
            means[index] = float(probability(found, temperature).mean(dtype=np.float64))
    return means


def probability(
    logits: Iterable[NDArray[np.float32]], temperature: float = 1.0
) -> NDArray[np.float32]:
    """The probability of the most probable class.

    Args:
        logits: K arrays (...), an array (K, ...) among them; they may be made one after the other.

    Returns:
        (...).
    """
    highest = total = None
    for scores in logits:
        scores = scores * np.float32(1 / temperature)
        if highest is None:
            highest, total = scores, np.ones_like(scores)
            continue
        lower = np.exp(-np.abs(scores - highest))
        total = np.where(scores > highest, total * lower + 1, total + lower)
        np.maximum(highest, scores, out=highest)
    return 1 / total


def _spread(count: int, stride: int) -> NDArray[np.intp]:
    """At most MOST of 0 ... count - 1, evenly, and as often at each place of a cell."""
    step = -(-count // MOST)
    while step > 1 and gcd(step, stride) > 1:
        step += 1
    return np.arange(0, count, step)


def _inside(
    logits: NDArray[np.float32], cells: NDArray, places: NDArray, stride: int
) -> NDArray[np.float32]:
    """(K, n) logits at one voxel of each cell, interpolated; at the edge they are repeated.

    Args:
        cells: (n,) flat indices; places: (n,) which of a cell's voxels, x fastest.
    """
    flat = logits.reshape(len(logits), -1)
    if stride == 1:
        return flat[:, cells]
    below, above, shares, pace = [], [], [], 1
    for axis in (2, 1, 0):
        size = logits.shape[axis + 1]
        at = cells // pace % size + ((places % stride + 0.5) / stride - 0.5)
        at = at.clip(0, size - 1)
        low = at.astype(np.intp)
        shares.append((at - low).astype(np.float32))
        below.append(low * pace)
        above.append(np.minimum(low + 1, size - 1) * pace)
        places, pace = places // stride, pace * size
    found = np.zeros((len(logits), len(cells)), np.float32)
    for corner in range(8):
        where, weight = np.zeros(len(cells), np.intp), np.ones(len(cells), np.float32)
        for axis in range(3):
            upper = corner >> axis & 1
            where += above[axis] if upper else below[axis]
            weight *= shares[axis] if upper else 1 - shares[axis]
        found += weight * flat[:, where]
    return found
