"""Space: orient, resample, and put results back.

An image's voxels mean nothing without their place in the patient. If a function here were wrong,
a tumour would be drawn in the other kidney, a left and a right hippocampus would change places,
or a contour would lie a slice above the organ, and nothing in the picture would look odd. So every
function goes through the full index-to-patient matrix and never through a guess by sign.

SimpleITK's (x, y, z) is turned round to our (z, y, x) in this file and nowhere else. Its world is
LPS: x to the patient's left, y to posterior, z to superior.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.errors import GeometryError, ImageError

Spacing = tuple[float, float, float]  # mm, (z, y, x)
Part = tuple[slice, slice, slice]  # voxels of an image, (z, y, x)

SLICES = "slices"  # instead of an orientation's three letters
CLEARLY_COARSER = 1.5  # times the other spacings: the axis across a stack's slices
MOST_VOXELS = 2**30  # 4 GiB of float32; a whole body at 1 mm has half as many


def check_image(image: sitk.Image) -> None:
    """Refuse what has no place in the patient: ImageError for voxels, GeometryError for the grid.

    An image is three-dimensional (see `as_volume` for two) with one real number per voxel, at
    least one voxel, a positive spacing and three independent axes. Left-handed and sheared
    directions (a mirrored scan, a tilted gantry) are accepted; all of this file honours them.
    """
    kind = image.GetPixelIDTypeAsString()
    if image.GetDimension() != 3:
        raise ImageError(
            f"The image has {image.GetDimension()} dimensions ({_by(image.GetSize())}); one volume "
            "of three is needed. Save one time point, or the whole stack of slices, as a file."
        )
    if any(word in kind for word in ("vector", "complex", "label")):
        raise ImageError(
            f"The image holds '{kind}' values ({image.GetNumberOfComponentsPerPixel()} per voxel); "
            "one real number per voxel is needed. Save one channel as a file of its own."
        )
    if 0 in image.GetSize():
        raise ImageError(f"The image is empty ({_by(image.GetSize())} voxels); export it again.")
    if not all(np.isfinite(s) and s > 0 for s in image.GetSpacing()):
        raise GeometryError(
            f"The image's spacing is {_by(image.GetSpacing())} mm; each must be above zero. Export "
            "the image again or correct its header."
        )
    if not np.all(np.isfinite([*image.GetOrigin(), *image.GetDirection()])):
        raise GeometryError(
            f"The image's origin {image.GetOrigin()} or direction {image.GetDirection()} is not a "
            "number; export the image again or correct its header."
        )
    if abs(np.linalg.det(_direction(image))) < 1e-3:
        raise GeometryError(
            f"The image's axes {image.GetDirection()} do not span a volume; export the image again "
            "or correct its header."
        )


def as_volume(image: sitk.Image) -> sitk.Image:
    """A 2-D image as a volume of one slice, 1 mm thick, in the plane z = 0; others as they are."""
    return sitk.JoinSeries([image]) if image.GetDimension() == 2 else image


def describe_grid(image: sitk.Image) -> str:
    """A grid for people, x first: "35x50x36 voxels of 1x1x1 mm, LPS" (or "…, oblique LPS")."""
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    aligned = np.isclose(np.abs(_direction(image)).max(axis=0), 1, atol=1e-4).all()
    return (
        f"{_by(image.GetSize())} voxels of {_by(image.GetSpacing())} mm, "
        f"{'' if aligned else 'oblique '}{code}"
    )


def spacing_of(image: sitk.Image) -> Spacing:
    """The spacing in mm as (z, y, x), which is how arrays are ordered."""
    return image.GetSpacing()[::-1]


def voxel_ml(image: sitk.Image) -> float:
    """The volume of one voxel in ml; sheared axes, as of a tilted gantry, make it smaller."""
    return float(abs(np.linalg.det(index_to_patient(image)))) / 1000


def same_grid(a: sitk.Image, b: sitk.Image, *, tolerance_mm: float = 1e-3) -> bool:
    """Whether voxels of equal index lie at the same place in the patient, to `tolerance_mm`.

    If this were wrong, two segmentations would be compared voxel by voxel that belong to different
    places, and a shift of the patient would be reported as a difference of the models.
    """
    if a.GetSize() != b.GetSize():
        return False
    # Two affine maps agree on a box if they agree at four corners that span it. Outer corners, so
    # that an axis of one voxel counts too.
    size = np.array(a.GetSize())
    corners = np.vstack([np.zeros(3), np.diag(size)]) - 0.5
    apart = _positions(a, corners) - _positions(b, corners)
    return bool(np.linalg.norm(apart, axis=1).max() <= tolerance_mm)


def reorient(image: sitk.Image, code: str) -> sitk.Image:
    """The same voxels at the same places, stored in another order: axes permuted and flipped only.

    Args:
        code: where the x, y and z axes lead, nearest: "LPS" is left, posterior, superior. `SLICES`:
            z leads across the slices, x and y as they are stored.

    If this were wrong, the network would see patients lying as none did in training, and return a
    left organ as the right one.
    """
    if code != SLICES:
        return sitk.DICOMOrient(image, code)
    across = _across_slices(image)
    return sitk.PermuteAxes(image, [axis for axis in range(3) if axis != across] + [across])


def _across_slices(image: sitk.Image) -> int:
    """The axis, x first, along which voxels are longest; the last one where none stands out.

    A stack along an organ's own axes, such as the short axis of the heart, lies obliquely: the
    nearest of the patient's axes may be any. A scan stored in another order is still told by this.
    """
    spacing = np.array(image.GetSpacing())
    across = int(spacing.argmax())
    return across if spacing[across] > CLEARLY_COARSER * np.delete(spacing, across).max() else 2


def resample(image: sitk.Image, spacing_mm: Spacing, *, linear: bool) -> sitk.Image:
    """The image at another spacing, covering the same box of the patient (its outer edges).

    The number of voxels is rounded, to at least one per axis; the spacing is then that which fits
    the box exactly, so it differs slightly from `spacing_mm`. Directions are kept.

    Args:
        spacing_mm: (z, y, x).
        linear: True for images (the result is float32), False for label maps (nearest voxel, same
            pixel type). Values beyond the outermost voxel centres repeat the edge.

    If voxel centres rather than edges were kept, everything would shrink towards a corner: a thick
    slice of 5 mm made 1 mm moves contours by 2 mm.
    """
    grid = Grid.of(image).at(spacing_mm).image()
    return _interpolate(image, grid, linear=linear, extrapolate=True)


class Grid(NamedTuple):
    """Where voxels lie, without the voxels; x first, LPS mm, as SimpleITK has it."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> Grid:
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def at(self, spacing_mm: Spacing) -> Grid:
        """The grid that `resample` makes at another spacing (z, y, x)."""
        extent = np.array(self.size) * self.spacing  # mm, x first
        size = np.maximum(np.rint(extent / spacing_mm[::-1]), 1)
        if size.prod() > MOST_VOXELS:
            raise GeometryError(
                f"At {_by(spacing_mm[::-1])} mm the image ({_by(self.size)} voxels of "
                f"{_by(self.spacing)} mm) would have {size.prod():.2g} voxels; check its spacing, "
                "or cut out the region of interest."
            )
        spacing = extent / size
        # The first voxel's centre, as an index of the old grid: half a new voxel from the old edge.
        first = (spacing / self.spacing - 1) / 2
        return Grid(
            tuple(size.astype(int).tolist()),
            tuple(spacing.tolist()),
            tuple((self.position(first)).tolist()),
            self.direction,
        )

    def cut(self, part: Part) -> Grid:
        """The grid of some voxels (z, y, x), as `crop` leaves it."""
        part = part[::-1]
        origin = self.position([one.start for one in part])
        size = tuple(one.stop - one.start for one in part)
        return Grid(size, self.spacing, tuple(origin.tolist()), self.direction)

    def turned(self, code: str) -> Grid:
        """The grid that `reorient` makes."""
        axes, flipped = turning(self, code)
        start = [0, 0, 0]  # the old voxel that becomes the first
        for axis, back in zip(axes, flipped, strict=True):
            start[axis] = self.size[axis] - 1 if back else 0
        direction = np.reshape(self.direction, (3, 3))[:, axes] * np.where(flipped, -1, 1)
        return Grid(
            tuple(self.size[axis] for axis in axes),
            tuple(self.spacing[axis] for axis in axes),
            tuple(self.position(start).tolist()),
            tuple(direction.ravel().tolist()),
        )

    def position(self, index: Sequence[float]) -> NDArray[np.float64]:
        """(x, y, z) of a continuous index (x, y, z)."""
        turn = np.reshape(self.direction, (3, 3))
        return self.origin + turn @ np.multiply(self.spacing, index)

    def image(self) -> sitk.Image:
        """An image of zeros, one byte each, on this grid."""
        image = sitk.Image(self.size, sitk.sitkUInt8)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image


def turning(grid: Grid, code: str) -> tuple[list[int], list[bool]]:
    """What `reorient` does: which old axis each new one is (x first), and whether turned round."""
    axes, ahead = _turning(grid.spacing, grid.direction, code)
    return list(axes), list(ahead)


@lru_cache(maxsize=64)  # SimpleITK takes milliseconds even for these few voxels
def _turning(
    spacing: tuple[float, ...], direction: tuple[float, ...], code: str
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    sizes = (2, 3, 4)
    small = Grid(sizes, spacing, (0.0, 0.0, 0.0), direction).image()
    turned = reorient(small, code)
    axes = tuple(sizes.index(size) for size in turned.GetSize())
    ahead = (_direction(small)[:, axes] * _direction(turned)).sum(axis=0)
    return axes, tuple((ahead < 0).tolist())


def on_grid_of(image: sitk.Image, reference: sitk.Image, *, linear: bool) -> sitk.Image:
    """The image interpolated at the voxel centres of `reference`, where they lie in the patient.

    Args:
        linear: True for images (the result is float32; outside the image its smallest value),
            False for label maps (nearest voxel, same pixel type; outside 0).

    If this were wrong, the channels of one patient would be laid over each other displaced, and the
    network would see a lesion beside its own outline.
    """
    return _interpolate(image, reference, linear=linear, extrapolate=False)


def crop(image: sitk.Image, part: Part) -> sitk.Image:
    """Some voxels (z, y, x) of an image, where they were in the patient."""
    part = part[::-1]
    return sitk.RegionOfInterest(
        image, [one.stop - one.start for one in part], [one.start for one in part]
    )


def _interpolate(
    image: sitk.Image, grid: sitk.Image, *, linear: bool, extrapolate: bool
) -> sitk.Image:
    smallest = float(sitk.GetArrayViewFromImage(image).min()) if linear and not extrapolate else 0.0
    return sitk.Resample(
        image,
        grid,
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkLinear if linear else sitk.sitkNearestNeighbor,
        smallest,
        sitk.sitkFloat32 if linear else image.GetPixelID(),
        extrapolate,
    )


def _by(numbers) -> str:
    return "x".join(f"{number:.4g}" for number in numbers)


def _direction(image: sitk.Image) -> np.ndarray:
    return np.array(image.GetDirection()).reshape(3, 3)


def index_to_patient(image: sitk.Image) -> NDArray:
    """(3, 3): columns are the steps in mm, LPS, of one voxel along x, y and z."""
    return _direction(image) * image.GetSpacing()


def _positions(image: sitk.Image, indices: np.ndarray) -> np.ndarray:
    """(n, 3) continuous indices (x, y, z) -> (n, 3) positions in mm, LPS."""
    return indices @ index_to_patient(image).T + image.GetOrigin()
