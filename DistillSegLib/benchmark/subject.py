"""What is segmented: a CT-like volume made by code, the same on every computer.

A body of fat and muscle in air, with lungs, organs, vessels and bone as ellipsoids, and the noise
of a scanner; 16-bit Hounsfield units. Every voxel's class is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import SimpleITK as sitk

Shape = tuple[int, int, int]

NOISE_HU = 10.0
AIR_HU = -1000.0


@dataclass(frozen=True)
class Setup:
    """A volume, and how networks are shown it; all (z, y, x).

    Attributes:
        shape, spacing_mm: of the image.
        grid: voxels of the whole image as a network sees it.
        patch: voxels of a window, for pipelines that use windows.
    """

    shape: Shape
    spacing_mm: tuple[float, float, float]
    grid: Shape
    patch: Shape

    @property
    def network_spacing_mm(self) -> tuple[float, float, float]:
        """Spacing of the network's grid."""
        extent = (n * step for n, step in zip(self.shape, self.spacing_mm))
        return tuple(length / n for length, n in zip(extent, self.grid))


FULL = Setup((200, 512, 512), (2.0, 0.8, 0.8), (128, 168, 208), (128, 128, 128))
QUICK = Setup((40, 96, 112), (8.0, 4.0, 3.5), (32, 64, 80), (32, 64, 64))


@dataclass(frozen=True)
class Part:
    """An ellipsoid of one class.

    Attributes:
        centre, radius: (z, y, x) as shares of half the volume; a radius above 2 along z is a tube.
    """

    name: str
    hounsfield: float
    centre: tuple[float, float, float]
    radius: tuple[float, float, float]


# Later parts lie over earlier ones. Class 0 is air; class i is CLASSES[i].
PARTS = (
    Part("Fat", -105, (0, 0, 0), (9, 0.74, 0.92)),
    Part("Muscle", 45, (0, 0, 0), (9, 0.64, 0.82)),
    Part("Lung", -820, (-0.75, -0.05, -0.42), (0.5, 0.45, 0.32)),
    Part("Lung", -820, (-0.75, -0.05, 0.42), (0.5, 0.45, 0.32)),
    Part("Heart", 170, (-0.8, -0.2, 0.1), (0.3, 0.3, 0.25)),
    Part("Liver", 115, (-0.1, -0.08, -0.42), (0.36, 0.42, 0.36)),
    Part("Gallbladder", 5, (0.1, -0.28, -0.25), (0.12, 0.1, 0.08)),
    Part("Spleen", 145, (-0.15, 0.2, 0.58), (0.22, 0.24, 0.15)),
    Part("Stomach", -40, (-0.1, -0.25, 0.3), (0.22, 0.2, 0.22)),
    Part("Pancreas", 85, (0.12, -0.08, 0.12), (0.1, 0.09, 0.26)),
    Part("Kidney", 215, (0.15, 0.28, -0.4), (0.26, 0.13, 0.13)),
    Part("Kidney", 215, (0.1, 0.28, 0.4), (0.26, 0.13, 0.13)),
    Part("Aorta", 300, (0, 0.18, 0.07), (9, 0.06, 0.06)),
    Part("Vertebra", 450, (0, 0.4, 0), (9, 0.15, 0.12)),
    Part("Pelvis", 700, (0.85, 0.2, -0.5), (0.3, 0.22, 0.16)),
    Part("Pelvis", 700, (0.85, 0.2, 0.5), (0.3, 0.22, 0.16)),
)
CLASSES = ("Air", *dict.fromkeys(part.name for part in PARTS))


def phantom(shape: Shape, *, seed: int = 0) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """The volume in Hounsfield units and the class of each of its voxels, both (D, H, W)."""
    image, classes = np.empty(shape, np.int16), np.empty(shape, np.uint8)
    axes = [(np.arange(n, dtype=np.float32) + 0.5) * 2 / n - 1 for n in shape]
    values = np.full(len(CLASSES), AIR_HU, np.float32)
    for part in PARTS:
        values[CLASSES.index(part.name)] = part.hounsfield
    for number, z in enumerate(axes[0]):
        plane = classes[number]
        plane[...] = 0
        for part in PARTS:
            _draw(plane, part, float(z), axes[1], axes[2])
        noise = np.random.default_rng((seed, number)).standard_normal(shape[1:], np.float32)
        image[number] = np.rint(values[plane] + NOISE_HU * noise)
    return image, classes


def _draw(plane: NDArray[np.uint8], part: Part, z: float, y: NDArray, x: NDArray) -> None:
    """Write a part's class into one slice."""
    rest = 1 - ((z - part.centre[0]) / part.radius[0]) ** 2
    if rest <= 0:
        return
    down = ((y - part.centre[1]) / part.radius[1]) ** 2
    across = ((x - part.centre[2]) / part.radius[2]) ** 2
    rows, columns = np.flatnonzero(down < rest), np.flatnonzero(across < rest)
    if not len(rows) or not len(columns):
        return
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = down[box[0], None] + across[box[1]] < rest
    plane[box][inside] = CLASSES.index(part.name)


def as_image(array: NDArray, spacing_mm: tuple[float, float, float]) -> sitk.Image:
    """(D, H, W) as an image, spacing (z, y, x), axes to the left, posterior and superior."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    return image


def write_phantom(
    stopwatch: Any, threads: int, *, shape: Shape, spacing_mm: tuple[float, ...], out: str
) -> dict[str, Any]:
    """Work of a child: make the volume and write it; `.nii.gz` is compressed, `.nii` is not."""
    import SimpleITK as sitk

    image, _ = phantom(tuple(shape))
    sitk.WriteImage(as_image(image, tuple(spacing_mm)), out, useCompression=out.endswith(".gz"))
    return {"bytes": Path(out).stat().st_size}
