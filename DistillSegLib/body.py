"""Where the patient is in a CT: the air around need not pass through a network.

Hounsfield units tell a body from air in any CT; other modalities have no such scale. The network is
shown the body and, around it, as much as it sees at a time (its halo), on the very grid of the
whole image: so the labels in the body's box are those of the whole image, and outside is air.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from DistillSegLib.geometry import Part, spacing_of
from DistillSegLib.manifest import Manifest
from DistillSegLib.windows import per_axis

AIR = -500.0  # Hounsfield units; air has -1000, lung about -800 within a body, fat -100
STEP_MM = 4.0  # what is looked at lies so far apart, at most
WORTH = 0.9  # share of the network's voxels above which nothing is gained


class Body(NamedTuple):
    """Where a CT holds a patient.

    Attributes:
        part: (z, y, x) voxels of the image that the body lies in.
        box: (z, y, x) voxels of the network's grid: those, and the halo around them.
    """

    part: Part
    box: Part


def find_body(image: sitk.Image, manifest: Manifest) -> Body | None:
    """The body in a CT; None where nothing would be gained or something might be lost.

    That is: another modality, a network without a known halo, air alone, or little air.
    """
    if manifest.modality != "CT" or manifest.halo is None or not manifest.single_pass:
        return None
    part = dense_part(image)
    if part is None:
        return None
    lattice = manifest.preprocessing.lattice(image)
    box = []
    steps = zip(per_axis(manifest.multiple), per_axis(manifest.halo), strict=True)
    for (first, stop), size, (multiple, halo) in zip(
        lattice.holding(part), lattice.grid.size[::-1], steps, strict=True
    ):
        # Begins at a multiple, where the network's strides begin, and ends at one or at the end.
        start = max(first - halo, 0) // multiple * multiple
        end = min(-(-(stop + halo) // multiple) * multiple, size)
        box.append(slice(start, end))
    share = np.prod([(one.stop - one.start) / n for one, n in zip(box, lattice.grid.size[::-1])])
    return Body(part, tuple(box)) if share < WORTH else None


def dense_part(image: sitk.Image) -> Part | None:
    """The box (z, y, x) of what is denser than air, a table included; None where nothing is.

    What is smaller than `STEP_MM` may be missed, but nothing is cut off closely.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    steps = [max(int(STEP_MM / each), 1) for each in spacing_of(image)]
    dense = voxels[tuple(slice(None, None, step) for step in steps)] > AIR
    part = []
    for axis, (size, step) in enumerate(zip(voxels.shape, steps, strict=True)):
        found = np.flatnonzero(dense.any(axis=tuple({0, 1, 2} - {axis})))
        if not len(found):
            return None
        start, stop = found[0] * step - step + 1, (found[-1] + 1) * step
        part.append(slice(int(max(start, 0)), int(min(stop, size))))
    return tuple(part)
