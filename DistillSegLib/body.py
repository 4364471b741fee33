"""Where the patient is in a CT: the air around need not pass through a network.

Hounsfield units tell a body from air in any CT; other modalities have no such scale. The network is
shown the body and, around it, as much as it sees at a time (its halo), on the very grid of the
whole image: so the labels in the body's box are those of the whole image, and outside is air.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.geometry import Part, spacing_of
from DistillSegLib.manifest import Manifest
from DistillSegLib.windows import per_axis

AIR = -500.0  # Hounsfield units; air has -1000, lung about -800 within a body, fat -100
LUNG = -900.0  # Hounsfield units; what is denser beyond the body may be a lung that was cut
MOST_LUNG = 0.05  # share of what is beyond the body: noise, clothes
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

    That is: another modality, values scaled image by image, a network without a known halo, air
    alone, little air, or lung at the edges.
    """
    units = {each.scheme for each in manifest.preprocessing.intensity}
    if manifest.modality != "CT" or units != {"fixed"}:
        return None
    if manifest.halo is None or not manifest.single_pass:
        return None
    part = dense_part(image)
    if part is None:
        return None
    lattice = manifest.preprocessing.lattice(image)
    # A voxel at the edge lies between two logits, of which one stands for `stride` voxels beyond.
    stride = max(variant.stride for variant in manifest.variants)
    box = []
    steps = zip(per_axis(manifest.multiple), per_axis(manifest.halo), strict=True)
    for (first, stop), size, (multiple, halo) in zip(
        lattice.holding(part), lattice.grid.size[::-1], steps, strict=True
    ):
        # Begins at a multiple, where the network's strides begin, and ends at one or at the end.
        start = max(first - stride - halo, 0) // multiple * multiple
        end = min(-(-(stop + stride + halo) // multiple) * multiple, size)
        box.append(slice(start, end))
    share = np.prod([(one.stop - one.start) / n for one, n in zip(box, lattice.grid.size[::-1])])
    return Body(part, tuple(box)) if share < WORTH else None


def dense_part(image: sitk.Image) -> Part | None:
    """The box (z, y, x) of what is denser than air, a table included; None where nothing is.

    Nor where more than air is around it. What is smaller than `STEP_MM` may be missed, but nothing
    is cut off closely.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    steps = [max(int(STEP_MM / each), 1) for each in spacing_of(image)]
    seen = np.ascontiguousarray(voxels[tuple(slice(None, None, step) for step in steps)])
    dense, part = seen > AIR, []
    for axis, (size, step) in enumerate(zip(voxels.shape, steps, strict=True)):
        found = np.flatnonzero(dense.any(axis=tuple({0, 1, 2} - {axis})))
        if not len(found):
            return None
        start, stop = found[0] * step - step + 1, (found[-1] + 1) * step
        part.append(slice(int(max(start, 0)), int(min(stop, size))))
    inside = [slice(-(-one.start // n), -(-one.stop // n)) for one, n in zip(part, steps)]
    return tuple(part) if _only_air_beyond(seen > LUNG, tuple(inside)) else None


def _only_air_beyond(tissue: NDArray[np.bool_], inside: Part) -> bool:
    beyond = tissue.size - tissue[inside].size
    return np.count_nonzero(tissue) - np.count_nonzero(tissue[inside]) <= MOST_LUNG * beyond
