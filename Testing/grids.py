"""Grids in space as scanners make them, and where their voxels lie in the patient."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import SimpleITK as sitk
from hypothesis import strategies as st

CODES = [
    "".join(letters) for axes in permutations(["LR", "PA", "SI"]) for letters in product(*axes)
]
# Where each letter leads, in LPS millimetres.
WAY = {
    "L": (1, 0, 0), "P": (0, 1, 0), "S": (0, 0, 1),
    "R": (-1, 0, 0), "A": (0, -1, 0), "I": (0, 0, -1),
}  # fmt: skip

seeds = st.integers(0, 2**32 - 1)
codes = st.sampled_from(CODES)


def volume(array, *, spacing_xyz=(1.0, 1.0, 1.0), direction=None, origin=(0.0, 0.0, 0.0)):
    image = sitk.GetImageFromArray(np.asarray(array))
    image.SetSpacing([float(s) for s in spacing_xyz])
    image.SetOrigin([float(o) for o in origin])
    if direction is not None:
        image.SetDirection(np.asarray(direction, float).ravel().tolist())
    return image


def any_direction(rng):
    """Right- and left-handed, oblique to any degree, axes in any order."""
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return turn


def any_grid(rng, *, low=2, high=11):
    shape = rng.integers(low, high, 3)
    return volume(
        np.zeros(shape, np.uint8),
        spacing_xyz=rng.uniform(0.4, 5, 3),
        direction=any_direction(rng),
        origin=rng.uniform(-200, 200, 3),
    )


def positions(image):
    """(D, H, W, 3) the patient's coordinates of every voxel, as SimpleITK itself says."""
    places = [
        image.TransformIndexToPhysicalPoint((x, y, z))
        for z, y, x in np.ndindex(*image.GetSize()[::-1])
    ]
    return np.array(places).reshape(*image.GetSize()[::-1], 3)


def lattice_on(grid, stride):
    """Where a network of that output stride puts its logits: amid the voxels that each is for."""
    lattice = sitk.Image([-(-n // stride) for n in grid.GetSize()], sitk.sitkUInt8)
    lattice.SetSpacing([s * stride for s in grid.GetSpacing()])
    lattice.SetDirection(grid.GetDirection())
    lattice.SetOrigin(grid.TransformContinuousIndexToPhysicalPoint([(stride - 1) / 2] * 3))
    return lattice
