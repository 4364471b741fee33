"""Space: nothing moves, nothing changes sides."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.geometry import (
    reorient,
)

CODES = [
    "".join(letters) for axes in permutations(["LR", "PA", "SI"]) for letters in product(*axes)
]
# Where each letter leads, in LPS millimetres.
WAY = {
    "L": (1, 0, 0), "P": (0, 1, 0), "S": (0, 0, 1),
    "R": (-1, 0, 0), "A": (0, -1, 0), "I": (0, 0, -1),
}  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_axes_lead_where_the_code_says(code):
    image = sitk.Image(3, 4, 5, sitk.sitkUInt8)
    direction = np.array(reorient(image, code).GetDirection()).reshape(3, 3)
    assert [tuple(direction[:, axis]) for axis in range(3)] == [WAY[letter] for letter in code]
