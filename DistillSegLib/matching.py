"""Which structure of one segmentation is which of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from DistillSegLib.labels import Label

Match = Literal["terminology", "name", "value", "overlap", "hand", "only in A", "only in B"]
Pair = tuple["Label | None", "Label | None", Match]

LEAST_OVERLAP = 0.3  # Dice above which two structures without common names are taken for one


def match(a, b, overlaps: Mapping[tuple[int, int], float] | None = None) -> list[Pair]:
    """Pairs of labels of two tables that mean the same structure, in A's order, then B's rest.

    Args:
        overlaps: Dice by pair of values. Where it is given, what shares neither terminology nor
            name is paired by it, otherwise by value.
    """
    partners: dict[int, tuple[Label, Match]] = {}  # by A's value
    rest_a, rest_b = list(a), list(b)
    ways = [("terminology", _codes), ("name", folded), ("value", _value)]
    for way, key in ways[:2] if overlaps is not None else ways:
        for label in list(rest_a):
            same = [other for other in rest_b if key(label) and key(label) == key(other)]
            alike = [other for other in rest_a if key(other) == key(label)]
            if way == "value":
                same = [other for other in same if not (_codes(label) and _codes(other))]
            if len(same) == 1 and len(alike) == 1:  # a key held twice tells nothing
                partners[label.value] = (same[0], way)
                rest_a.remove(label)
                rest_b.remove(same[0])
    for label, other in _largest_overlaps(rest_a, rest_b, overlaps or {}):
        partners[label.value] = (other, "overlap")
        rest_b.remove(other)
    found = [(label, *partners.get(label.value, (None, "only in A"))) for label in a]
    return found + [(None, label, "only in B") for label in rest_b]


def _largest_overlaps(a, b, overlaps) -> list[tuple[Label, Label]]:
    """Pairs of labels, each taken once, the largest overlap first."""
    rest_a, rest_b = ({label.value: label for label in labels} for labels in (a, b))
    found = []
    for (value_a, value_b), share in sorted(overlaps.items(), key=lambda item: -item[1]):
        if share < LEAST_OVERLAP or value_a not in rest_a or value_b not in rest_b:
            continue
        if _codes(rest_a[value_a]) and _codes(rest_b[value_b]):
            continue  # both say what they are, and it is not the same
        found.append((rest_a.pop(value_a), rest_b.pop(value_b)))
    return found


def by_hand(a, b, pairs: Sequence[tuple[int | None, int | None]]) -> list[Pair]:
    """Pairs of labels as somebody chose them, by value; None where one lacks it."""
    of_a, of_b = ({label.value: label for label in labels} for labels in (a, b))
    found = []
    for value_a, value_b in pairs:
        label, other = of_a.get(value_a), of_b.get(value_b)
        if label or other:
            way = "hand" if label and other else "only in A" if label else "only in B"
            found.append((label, other, way))
    return found


def overlaps_of(a: NDArray, b: NDArray) -> dict[tuple[int, int], float]:
    """Dice of every pair of values that share voxels, plane by plane to save memory."""
    number_a, number_b = int(a.max()) + 1, int(b.max()) + 1
    shared = np.zeros(number_a * number_b, np.int64)
    for plane_a, plane_b in zip(a, b):
        if plane_a.any() or plane_b.any():
            codes = plane_a.ravel().astype(np.int64) * number_b + plane_b.ravel()
            shared += np.bincount(codes, minlength=len(shared))
    shared = shared.reshape(number_a, number_b)
    in_a, in_b = shared.sum(axis=1), shared.sum(axis=0)  # background is 0, also where it was left
    in_b[0] = 0
    pairs = np.argwhere(shared[1:, 1:]) + 1
    return {(int(i), int(j)): 2 * int(shared[i, j]) / int(in_a[i] + in_b[j]) for i, j in pairs}


def _codes(label: Label) -> tuple[str, ...]:
    """What a terminology string means: scheme and value of its codes, from the type on.

    The category before it and the names of the contexts differ between programs for one structure.
    """
    codes = [field.split("^")[:2] for field in label.terminology.split("~")[2:] if "^" in field]
    return tuple(":".join(code) for code in codes) if codes and any(codes[0]) else ()


def folded(label: Label) -> str:
    """A name without what does not count in it: case, underscores and spaces in a row."""
    return " ".join(label.name.casefold().replace("_", " ").split())


def _value(label: Label) -> int:
    return label.value
