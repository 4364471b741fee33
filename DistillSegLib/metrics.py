"""How well two masks agree: Dice, HD95, surface Dice, volume.

Definitions are those of MONAI, and are tested against it:

* Dice: shared volume over mean volume.
* HD95: surfaces are the voxels that a 6-neighbour erosion removes. In each direction the 95th
  percentile (linearly interpolated) of the distances to the other surface; the larger of the two.
* Surface Dice (normalised surface distance): surfaces are marching-cubes elements between voxel
  centres, weighted by their area in mm². The share of both within a tolerance of the other.

A mask that reaches the border of the image has a surface there. An image of a single slice is taken
as a picture: it has contours, and no surface above and below.

| empty    | Dice | HD95 | surface Dice |
|----------|------|------|--------------|
| both     | NaN  | NaN  | NaN          |
| only one | 0    | inf  | 0            |

Everything is computed on the box around both masks, so the cost follows the structure's size.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from DistillSegLib.boxes import bounding_box
from DistillSegLib.errors import GeometryError
from DistillSegLib.labels import Label, LabelTable

Spacing = tuple[float, float, float]  # mm, as (z, y, x)


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces, element by element.

    Attributes:
        a_to_b: (n,) mm, from each element of A's surface to the nearest of B's; inf if B is empty.
        b_to_a: (m,) mm.
        area_a: (n,) mm², the area of each element of A's surface.
        area_b: (m,) mm².
    """

    a_to_b: NDArray[np.float32]
    b_to_a: NDArray[np.float32]
    area_a: NDArray[np.float64]
    area_b: NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """One structure: A (the prediction) against B (the reference)."""

    label: Label
    dice: float
    hd95_mm: float
    nsd: float
    volume_a_ml: float
    volume_b_ml: float


def score(
    prediction: NDArray[np.integer],
    reference: NDArray[np.integer],
    labels: LabelTable,
    *,
    spacing_mm: Spacing,
    tolerance_mm: float = 1.0,
) -> list[Score]:
    """Scores of every label in `labels`, in its order.

    Args:
        prediction: (D, H, W) label values.
        reference: (D, H, W) label values on the same grid.
        spacing_mm: voxel spacing as (z, y, x).
        tolerance_mm: for the surface Dice.
    """
    _check_shapes(prediction, reference)
    return [
        score_masks(
            label,
            prediction == label.value,
            reference == label.value,
            spacing_mm=spacing_mm,
            tolerance_mm=tolerance_mm,
        )
        for label in labels
    ]


def score_masks(
    label: Label, a: NDArray, b: NDArray, *, spacing_mm: Spacing, tolerance_mm: float = 1.0
) -> Score:
    """The scores of one structure, given as two (D, H, W) bool masks."""
    return Score(
        label,
        dice=dice(a, b),
        hd95_mm=hd95_mm(a, b, spacing_mm=spacing_mm),
        nsd=nsd(a, b, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm),
        volume_a_ml=volume_ml(a, spacing_mm),
        volume_b_ml=volume_ml(b, spacing_mm),
    )


def volume_ml(mask: NDArray, spacing_mm: Spacing) -> float:
    """Voxels times the volume of one, in millilitres."""
    return int(np.count_nonzero(mask)) * math.prod(map(float, spacing_mm)) / 1000


def dice(a: NDArray, b: NDArray) -> float:
    """Twice the shared voxels over the voxels of both: 2|A∩B| / (|A|+|B|).

    Args:
        a: bool, any shape.
        b: bool, same shape.

    Returns:
        A value in [0, 1]. NaN if both are empty; 0 if exactly one is.
    """
    _check_shapes(a, b)
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / total if total else math.nan


def hd95_mm(a: NDArray, b: NDArray, *, spacing_mm: Spacing) -> float:
    """The larger of the two directed 95th percentiles of surface distance, in mm.

    Args:
        a: (D, H, W) bool.
        b: (D, H, W) bool, same shape.
        spacing_mm: voxel spacing as (z, y, x).

    Returns:
        A distance of 0 or more. NaN if both are empty; inf if exactly one is.

    Reference: Huttenlocher et al., 1993; the percentile as in MONAI (`directed=False`).
    """
    a, b = _boxed(a, b)
    if not (a.any() and b.any()):
        return math.nan if a.any() == b.any() else math.inf
    edges_a, edges_b = _edges(a), _edges(b)
    a_to_b = _distances(edges_a, edges_b, spacing_mm)
    b_to_a = _distances(edges_b, edges_a, spacing_mm)
    return float(max(np.percentile(a_to_b, 95), np.percentile(b_to_a, 95)))


def nsd(a: NDArray, b: NDArray, *, spacing_mm: Spacing, tolerance_mm: float) -> float:
    """Normalised surface Dice: the share of both surfaces within `tolerance_mm` of the other.

    Args:
        a: (D, H, W) bool.
        b: (D, H, W) bool, same shape.
        spacing_mm: voxel spacing as (z, y, x).
        tolerance_mm: a distance that does not matter, such as the readers' own variation.

    Returns:
        A value in [0, 1]. NaN if both are empty; 0 if exactly one is.

    Reference: Nikolov et al., 2018, arXiv:1809.04430 (sub-voxel surfaces, as in MONAI with
    `use_subvoxels=True`).
    """
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ValueError(f"the tolerance must be 0 mm or more, found {tolerance_mm}.")
    surface = surface_distances(a, b, spacing_mm)
    total = surface.area_a.sum() + surface.area_b.sum()
    # In float32, like the distances, so that "equal to the tolerance" counts as within it.
    tolerance = np.float32(tolerance_mm)
    within = surface.area_a[surface.a_to_b <= tolerance].sum()
    within += surface.area_b[surface.b_to_a <= tolerance].sum()
    return float(within / total) if total else math.nan


def surface_distances(a: NDArray, b: NDArray, spacing_mm: Spacing) -> SurfaceDistances:
    """Distances between the sub-voxel surfaces of two (D, H, W) bool masks.

    A surface element lies in the middle of eight voxel centres that are not all in or all out; its
    area is that of the marching-cubes triangles there.
    """
    a, b = _boxed(a, b)
    codes_a, codes_b = _neighbour_codes(a), _neighbour_codes(b)
    at_a, at_b = (codes_a % 255) != 0, (codes_b % 255) != 0  # neither 0 nor 255
    area_mm2 = _areas(tuple(map(float, spacing_mm)))
    return SurfaceDistances(
        a_to_b=_distances(at_a, at_b, spacing_mm),
        b_to_a=_distances(at_b, at_a, spacing_mm),
        area_a=area_mm2[codes_a[at_a]],
        area_b=area_mm2[codes_b[at_b]],
    )


def _check_shapes(a: NDArray, b: NDArray) -> None:
    if np.shape(a) != np.shape(b):
        raise GeometryError(
            f"The masks to score have different shapes, {np.shape(a)} and {np.shape(b)}; "
            "bring both onto one grid first."
        )


def _boxed(a: NDArray, b: NDArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both masks on the box around their union, with a rim of one empty voxel.

    An axis of one voxel gets no rim: across it there is no surface (see the module's docstring).
    """
    _check_shapes(a, b)
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.ndim != 3:
        raise GeometryError(f"Masks to score have three axes (z, y, x), found shape {a.shape}.")
    box = bounding_box(a | b) or (slice(0, 1),) * 3
    rim = [(int(size > 1),) * 2 for size in a.shape]
    return np.pad(a[box], rim), np.pad(b[box], rim)


def _edges(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of `mask` with a face towards the outside; expects the rim of `_boxed`."""
    inner = mask.copy()
    for axis in (axis for axis, size in enumerate(mask.shape) if size > 1):
        inner &= np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    return mask & ~inner


def _distances(
    from_: NDArray[np.bool_], to: NDArray[np.bool_], spacing_mm: Spacing
) -> NDArray[np.float32]:
    """For each true voxel of `from_`, the distance in mm to the nearest true voxel of `to`."""
    import SimpleITK as sitk  # here, because training scores Dice from its cache without it

    if not (from_.any() and to.any()):
        return np.full(np.count_nonzero(from_), np.inf, np.float32)
    targets = sitk.GetImageFromArray(to.astype(np.uint8))
    targets.SetSpacing([float(step) for step in reversed(spacing_mm)])
    image = sitk.SignedMaurerDistanceMap(targets, squaredDistance=False, useImageSpacing=True)
    # The map measures to the contour of `to`, negative inside it. From outside, the nearest voxel
    # always lies on the contour, so the distance is exact; inside it is 0 by definition.
    distances = np.maximum(sitk.GetArrayFromImage(image)[from_], 0)
    # It subtracts positions in float32, so far from the origin a step of 0.7 mm becomes 0.700004 mm
    # and misses a tolerance of 0.7 mm. The nearest length that a grid can have undoes this.
    lengths = _grid_lengths(tuple(map(float, spacing_mm)))
    near = distances < lengths[-1]
    middles = (lengths[1:] + lengths[:-1]) / 2
    distances[near] = lengths[np.searchsorted(middles, distances[near])]
    return distances


@cache
def _grid_lengths(spacing_mm: Spacing) -> NDArray[np.float64]:
    """Every distance in mm between two voxels, ascending, up to 32 times the mean spacing."""
    reach_mm = 32 * math.prod(spacing_mm) ** (1 / 3)
    z, y, x = (np.square(np.arange(int(reach_mm / step) + 2) * step) for step in spacing_mm)
    lengths = np.unique(np.sqrt(z[:, None, None] + y[:, None] + x))
    return lengths[lengths <= reach_mm]


# --- The area of a surface element --------------------------------------------------------------
#
# Eight voxel centres are the corners of a cube; those inside the mask give a code of eight bits.
# The surface cuts each edge between an inside and an outside corner in its middle:
#
#        6-------7          Corners joined by edges form one piece with one closed polygon around
#       /|      /|          it. A corner alone is a triangle, two are a rectangle, four of a face
#      4-------5 |          a square; three form a bent pentagon, a bent chain of four a bent
#      | 2-----|-3          hexagon. A bent one is triangulated as a fan around the vertex that
#      |/      |/           gives the largest area, which reproduces the table of
#      0-------1            google-deepmind/surface-distance (and so MONAI's) for any spacing.

_CORNERS = tuple(itertools.product((0, 1), repeat=3))  # (z, y, x); bit i of a code is corner i


def _neighbour_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The code of every cube of 2x2x2 voxels; a single slice is doubled into a prism."""
    mask = np.pad(mask, [(0, int(size == 1)) for size in mask.shape], mode="edge")
    shape = tuple(size - 1 for size in mask.shape)
    codes = np.zeros(shape, np.uint8)
    for bit, corner in enumerate(_CORNERS):
        part = mask[tuple(slice(first, first + size) for first, size in zip(corner, shape))]
        codes |= part.astype(np.uint8) << np.uint8(bit)
    return codes


@cache
def _areas(spacing_mm: Spacing) -> NDArray[np.float64]:
    """(256,) mm²: the surface area in a cube of each code."""
    z, y, x = spacing_mm
    areas = np.linalg.norm(_normals() * np.array([y * x, z * x, z * y]), axis=-1).sum(axis=-1)
    areas.setflags(write=False)  # shared by every caller
    return areas


@cache
def _normals() -> NDArray[np.float64]:
    """(256, 4, 3): four triangles' normals per code, as long as their area at unit spacing."""
    normals = np.zeros((256, 4, 3))
    for code in range(256):
        inside = {corner for bit, corner in enumerate(_CORNERS) if code >> bit & 1}
        if len(inside) > 4:  # the surface seen from the other side
            inside = set(_CORNERS) - inside
        triangles = [normal for piece in _pieces(inside) for normal in _polygon(piece, inside)]
        normals[code, : len(triangles)] = triangles or 0
    return normals


def _neighbours(corner: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [other for other in _CORNERS if sum(map(abs, np.subtract(corner, other))) == 1]


def _pieces(corners: set) -> list[set]:
    """The corners in groups that are joined by edges of the cube."""
    rest, pieces = set(corners), []
    while rest:
        piece, front = set(), {rest.pop()}
        while front:
            piece |= front
            front = {other for corner in front for other in _neighbours(corner)} & rest
            rest -= front
        pieces.append(piece)
    return pieces


def _polygon(piece: set, inside: set) -> list[NDArray[np.float64]]:
    """Normals of the triangles of the polygon around one piece of at most four corners."""
    # A middle of an edge is the sum of its ends, so that 0 and 2 lie on faces of the cube. Two
    # middles on one face are neighbours: no face is cut more than once by one piece.
    rest = [np.add(c, o) for c in sorted(piece) for o in _neighbours(c) if o not in inside]
    loop = [rest.pop()]
    while rest:
        on_face = [bool(((p == loop[-1]) & (p != 1)).any()) for p in rest]
        loop.append(rest.pop(on_face.index(True)))
    fans = [_fan(loop[i:] + loop[:i]) for i in range(len(loop))]
    return max(fans, key=lambda fan: round(sum(map(np.linalg.norm, fan)), 9))


def _fan(loop: list) -> list[NDArray[np.float64]]:
    first = loop[0]
    return [np.cross(p - first, q - first) / 8 for p, q in itertools.pairwise(loop[1:])]
