"""Where the patient is in a CT: air around the body need not pass through a network.

Hounsfield units tell a body from air in any CT; other modalities have no such scale.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from DistillSegLib.geometry import Part, spacing_of

AIR = -500.0  # Hounsfield units; air has -1000, lung about -800 within a body, fat -100
STEP_MM = 4.0  # what is looked at lies so far apart, at most
MARGIN_MM = 20.0  # around the body, so that the network sees air there too
WORTH = 0.9  # share of the image above which nothing is gained


def body_part(image: sitk.Image) -> Part | None:
    """The box (z, y, x) of a CT that holds the body; None where that is all of it, or none.

    A table belongs to it. What is smaller than `STEP_MM` may be missed, but not cut off closely.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    spacing = spacing_of(image)
    steps = [max(int(STEP_MM / each), 1) for each in spacing]
    dense = voxels[tuple(slice(None, None, step) for step in steps)] > AIR
    part = []
    for axis, (size, step, mm) in enumerate(zip(voxels.shape, steps, spacing, strict=True)):
        found = np.flatnonzero(dense.any(axis=tuple({0, 1, 2} - {axis})))
        if not len(found):
            return None
        margin = step - 1 + int(np.ceil(MARGIN_MM / mm))
        start, stop = found[0] * step - margin, found[-1] * step + 1 + margin
        part.append(slice(int(max(start, 0)), int(min(stop, size))))
    share = np.prod([(one.stop - one.start) / n for one, n in zip(part, voxels.shape)])
    return tuple(part) if share < WORTH else None
