"""How sure a network was: the probability that it gave to the class it chose.

The probability is that of the softmax, p = exp(max l) / sum exp(l), between 1/K and 1. It is the
network's own opinion, not the chance of being right: a network may be sure and wrong.
"""

from __future__ import annotations

from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray

MOST = 2**15  # voxels of a class that its mean is taken over, evenly spread; its error is below 1 %


def mean_by_class(logits: NDArray[np.float32], winners: NDArray[np.integer]) -> dict[int, float]:
    """The mean probability over the voxels of each class that was chosen somewhere, 0 excepted.

    Args:
        logits: (K, D, H, W).
        winners: (D, H, W) the class of the largest logit.
    """
    flat = logits.reshape(len(logits), -1)
    places = np.flatnonzero(winners)
    classes = winners.ravel()[places]
    order = np.argsort(classes, kind="stable")
    ends = np.cumsum(np.bincount(classes, minlength=len(logits)))
    means = {}
    for index, (start, stop) in enumerate(pairwise(ends), start=1):
        if stop > start:
            chosen = places[order[start : stop : ceil((stop - start) / MOST)]]
            means[index] = float(probability(flat[:, chosen]).mean(dtype=np.float64))
    return means


def probability(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(K, ...) -> (...) the probability of the most probable class."""
    highest = logits.max(axis=0)
    total = np.zeros_like(highest)
    for scores in logits:
        total += np.exp(scores - highest)
    return 1 / total
