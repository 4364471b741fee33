"""From images to what a network sees, in one place for training, validation and the clinic.

`Preprocessing` is plain data: it is planned from a data set, stored in the training cache and in
the model package, and the same `apply` runs everywhere, so that nothing can drift apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from DistillSegLib.errors import ImageError

# SimpleITK, and geometry.py which rests on it, are imported where images are handled: training from
# a cache uses this file on machines that have none.
if TYPE_CHECKING:
    import SimpleITK as sitk

    from DistillSegLib.geometry import Grid, Part
    from DistillSegLib.sampling import Lattice

SAME_SPACING = 1e-3  # relative; nearer than this, interpolating would only blur


@dataclass(frozen=True)
class Intensity:
    """How one channel's values are clipped and scaled.

    Attributes:
        scheme: "fixed" where values have a meaning of their own (CT, in Hounsfield units), "image"
            where each image has its own scale (MR).
        clip: lowest and highest value kept: in the image's own units ("fixed") or as percentiles of
            each image, 0 to 100 ("image").
        mean, std: of the data set's foreground, for "fixed"; "image" takes each image's own, after
            clipping, and these stay unused.
    """

    scheme: Literal["fixed", "image"]
    clip: tuple[float, float]
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        low, high = self.clip
        if not (np.isfinite([low, high, self.mean, self.std]).all() and low < high):
            raise ValueError(f"clip is [{low}, {high}]; use two finite numbers that ascend.")
        if self.scheme == "image" and not 0 <= low < high <= 100:
            raise ValueError(f"clip is [{low}, {high}]; percentiles lie between 0 and 100.")
        if self.std <= 0:
            raise ValueError(f"std is {self.std}; it must be above zero.")

    def apply(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Clip and scale in place. A constant image becomes zeros under "image"."""
        low, high = self.clip if self.scheme == "fixed" else np.percentile(array, self.clip)
        np.clip(array, low, high, out=array)
        mean, std = self.mean, self.std
        if self.scheme == "image":
            mean, std = array.mean(dtype=np.float64), array.std(dtype=np.float64)
        array -= np.float32(mean)
        array /= np.float32(max(std, 1e-8))
        return array


@dataclass(frozen=True)
class Prepared:
    """What a network sees, and where that lies in the patient.

    Attributes:
        array: (C, D, H, W) float32, contiguous.
        grid: an image of (D, H, W) voxels whose geometry is that of `array`.
    """

    array: NDArray[np.float32]
    grid: sitk.Image


@dataclass(frozen=True)
class Preprocessing:
    """Orientation, spacing and intensities of a network's input.

    Attributes:
        spacing_mm: (z, y, x) after orientation.
        intensity: one for each channel.
        orientation: where the x, y and z axes lead; "LPS" is left, posterior, superior. Or
            "slices": z leads across the slices, however these lie in the patient, x and y as they
            are stored; for stacks along an organ's own axes, as the short axis of the heart.
    """

    spacing_mm: tuple[float, float, float]
    intensity: tuple[Intensity, ...]
    orientation: str = "LPS"

    def __post_init__(self) -> None:
        if not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise ValueError(f"spacing_mm is {self.spacing_mm}; each must be above zero.")
        if not self.intensity:
            raise ValueError("intensity is empty; give one entry for each channel.")
        axes = sorted("LRPASI".find(letter) // 2 for letter in self.orientation)
        if self.orientation != "slices" and axes != [0, 1, 2]:
            raise ValueError(
                f"orientation is '{self.orientation}'; use one letter each of L or R, "
                "P or A, S or I, such as 'LPS', or 'slices'."
            )

    def apply(
        self, images: Sequence[sitk.Image], *, part: Part | None = None, box: Part | None = None
    ) -> Prepared:
        """Orient, resample, clip and scale the channels of one patient.

        The first image decides the grid; channels with another grid are interpolated onto it where
        they lie in the patient.

        Args:
            part: (z, y, x) voxels of the first image, the rest of which is not looked at.
            box: (z, y, x) what is wanted of the result, where intensities need no whole image.
        """
        from DistillSegLib.geometry import check_image, on_grid_of, same_grid

        if len(images) != len(self.intensity):
            raise ImageError(
                f"The model takes {len(self.intensity)} image(s) of a patient, found "
                f"{len(images)}; give one for each channel, in the model's order."
            )
        for image in images:
            check_image(image)
        first, grid = self._sampled(images[0], part, box)
        channels = [first]
        for image in images[1:]:
            if same_grid(image, images[0]):
                channels.append(self._sampled(image, part, box)[0])
            else:
                channels.append(_voxels(on_grid_of(image, grid, linear=True)))
        array = np.stack(channels) if len(channels) > 1 else first[None]
        for channel, intensity in zip(array, self.intensity, strict=True):
            intensity.apply(channel)
        return Prepared(array, grid)

    def apply_label(self, label: sitk.Image) -> NDArray[np.integer]:
        """A label map on the grid that `apply` makes of the image it was drawn on: (D, H, W)."""
        from DistillSegLib.geometry import check_image

        check_image(label)
        values = _voxels(self._placed_label(label))
        if np.issubdtype(values.dtype, np.integer):
            return values
        rounded = np.rint(values)
        if not np.array_equal(rounded, values):
            raise ImageError(
                f"The label map holds {values[rounded != values][0]:g}, which is no label; use a "
                "map of whole numbers, not probabilities."
            )
        return rounded.astype(np.int32)

    def apply_map(self, image: sitk.Image) -> NDArray[np.float32]:
        """A map of probabilities on the grid that `apply` makes of its image: (D, H, W), linear."""
        return self._sampled(image)[0]

    def lattice(self, image: sitk.Image) -> Lattice:
        """Where the network's grid lies in an image."""
        from DistillSegLib.geometry import Grid
        from DistillSegLib.sampling import lattice

        own = Grid.of(image)
        return lattice(own, self.orientation, self._spacing_on(own))

    def _sampled(
        self, image: sitk.Image, part: Part | None = None, box: Part | None = None
    ) -> tuple[NDArray[np.float32], sitk.Image]:
        from DistillSegLib.geometry import Grid
        from DistillSegLib.sampling import sample

        spacing = self._spacing_on(Grid.of(image))
        return sample(image, self.orientation, spacing, part=part, box=box)

    def _spacing_on(self, own: Grid) -> tuple[float, ...] | None:
        near = self._near(own.turned(self.orientation).spacing[::-1])
        return None if near else self.spacing_mm

    def _placed_label(self, label: sitk.Image) -> sitk.Image:
        from DistillSegLib.geometry import reorient, resample, spacing_of

        label = reorient(label, self.orientation)
        near = self._near(spacing_of(label))
        return label if near else resample(label, self.spacing_mm, linear=False)

    def _near(self, spacing_mm: Sequence[float]) -> bool:
        return np.allclose(spacing_mm, self.spacing_mm, rtol=SAME_SPACING, atol=0)


def _voxels(image: sitk.Image) -> NDArray:
    """(D, H, W), a copy."""
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(image)
