"""Any two segmentations of one patient against each other, structure by structure.

Student against teacher, model against reader, yesterday's file against today's: everything is
measured on A's grid, on the box around each structure.

    >>> comparison = compare("fast.seg.nrrd", "reference.seg.nrrd")
    >>> [(row.structure, row.dice) for row in comparison.rows]
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.errors import GeometryError
from DistillSegLib.files import write_text
from DistillSegLib.geometry import describe_grid, on_grid_of, same_grid, spacing_of
from DistillSegLib.labels import Label
from DistillSegLib.metrics import score_masks
from DistillSegLib.segmentations import Segmentation, counts_by_value, read_segmentation

Match = Literal["terminology", "name", "value", "only in A", "only in B"]

COLUMNS = (
    "structure",
    "matched_by",
    "dice",
    "hd95_mm",
    "nsd",
    "volume_a_ml",
    "volume_b_ml",
    "difference_percent",
    "worst_slice",
    "worst_slice_mm2",
    "remark",
)


@dataclass(frozen=True)
class Row:
    """One structure.

    Attributes:
        structure: its name; "A's name / B's name" where they differ.
        matched_by: why A's and B's were taken for the same, or that only one has it.
        a, b: the labels; None where the segmentation's table does not know the structure.
        dice, hd95_mm, nsd: as in `metrics`; NaN where there is nothing to measure, `hd95_mm`
            infinite where only one of both found the structure.
        volume_a_ml, volume_b_ml: on the segmentation's own grid; NaN where it has no such label.
        difference_percent: (A - B) / B; NaN if B is empty.
        worst_slice: index, counted from 0 along A's axial axis, of the slice with the largest area
            that only one of both holds; None if they agree.
        worst_slice_mm2: that area.
    """

    structure: str
    matched_by: Match
    a: Label | None
    b: Label | None
    dice: float = math.nan
    hd95_mm: float = math.nan
    nsd: float = math.nan
    volume_a_ml: float = math.nan
    volume_b_ml: float = math.nan
    difference_percent: float = math.nan
    worst_slice: int | None = None
    worst_slice_mm2: float = math.nan

    @property
    def remark(self) -> str:
        """Why a number is missing or infinite; empty if none is."""
        if self.matched_by in ("only in A", "only in B"):
            return f"{self.matched_by}: the other has no such structure"
        if math.isnan(self.dice):
            return "not found by A nor by B"
        if math.isinf(self.hd95_mm):
            return f"not found by {'B' if self.volume_a_ml else 'A'}"
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: NaN and infinity, unknown to it, are null; `remark` says why."""
        return {column: _json(getattr(self, column)) for column in COLUMNS}


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        a: as given.
        b: on A's grid.
        rows: the structures of A in its order, then those that only B has.
        tolerance_mm: of the surface Dice (`nsd`).
        notes: what a reader must know before trusting the numbers, as sentences.
    """

    a: Segmentation
    b: Segmentation
    rows: tuple[Row, ...]
    tolerance_mm: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; see `Row.to_dict` for what null means."""
        return {
            "a": self.a.source,
            "b": self.b.source,
            "tolerance_mm": self.tolerance_mm,
            "notes": list(self.notes),
            "rows": [row.to_dict() for row in self.rows],
        }

    def to_csv(self, path: Path | str) -> Path:
        """Write the rows; a cell without a number is empty, an infinite distance is `inf`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in self.rows:
            values = (getattr(row, column) for column in COLUMNS)
            writer.writerow("" if v is None or v != v else v for v in values)
        return write_text(path, text.getvalue())


def compare(
    a: Segmentation | Path | str, b: Segmentation | Path | str, *, tolerance_mm: float = 1.0
) -> Comparison:
    """Compare two segmentations, given as such or as files.

    Structures are matched by terminology, what is left by name, what is left by value (unless the
    terminologies contradict each other). If the grids differ, B is brought onto A's by nearest
    neighbour, and `notes` says so.

    Raises:
        GeometryError: if they do not overlap in the patient.
    """
    a = a if isinstance(a, Segmentation) else read_segmentation(a)
    b = b if isinstance(b, Segmentation) else read_segmentation(b)
    moved, notes = _on_grid_of_a(a, b)
    voxels_a, voxels_b = sitk.GetArrayFromImage(a.image), sitk.GetArrayFromImage(moved.image)
    volumes_a, volumes_b = volumes_by_value_ml(a.image), volumes_by_value_ml(b.image)
    rows = []
    for label_a, label_b, matched_by in match(a.labels, b.labels):
        row = Row(
            _name(label_a, label_b),
            matched_by,
            label_a,
            label_b,
            volume_a_ml=volumes_a.get(label_a.value, 0.0) if label_a else math.nan,
            volume_b_ml=volumes_b.get(label_b.value, 0.0) if label_b else math.nan,
        )
        if label_a and label_b:
            mask_a, mask_b = voxels_a == label_a.value, voxels_b == label_b.value
            row = _measured(row, mask_a, mask_b, a.image, tolerance_mm)
        rows.append(row)
    if not rows:
        notes.append("Neither of both holds a structure; there is nothing to compare.")
    if any(row.matched_by == "value" for row in rows):
        notes.append(
            "Some structures share neither terminology nor name and were matched by their value in "
            "the files; check that they mean the same."
        )
    return Comparison(a, moved, tuple(rows), tolerance_mm, tuple(notes))


def match(a, b) -> list[tuple[Label | None, Label | None, Match]]:
    """Pairs of labels of two tables that mean the same structure, in A's order, then B's rest."""
    partners: dict[int, tuple[Label, Match]] = {}  # by A's value
    rest_a, rest_b = list(a), list(b)
    for way, key in (("terminology", _codes), ("name", _folded), ("value", _value)):
        for label in list(rest_a):
            same = [other for other in rest_b if key(label) and key(label) == key(other)]
            alike = [other for other in rest_a if key(other) == key(label)]
            if way == "value":
                same = [other for other in same if not (_codes(label) and _codes(other))]
            if len(same) == 1 and len(alike) == 1:  # a key held twice tells nothing
                partners[label.value] = (same[0], way)
                rest_a.remove(label)
                rest_b.remove(same[0])
    pairs = [(label, *partners.get(label.value, (None, "only in A"))) for label in a]
    return pairs + [(None, label, "only in B") for label in rest_b]


def axial_axis(image: sitk.Image) -> int:
    """The array axis (0 is z) along which axial slices are stacked: nearest to superior."""
    return anatomical_axes(image)[0]


def anatomical_axes(image: sitk.Image) -> tuple[int, int, int]:
    """The array axes that run nearest to superior, posterior and left.

    Axial, coronal and sagittal slices are stacked along them. Each axis is taken once, the best
    fit first.
    """
    along = np.abs(np.reshape(image.GetDirection(), (3, 3)))  # [world x y z, image x y z]
    axes = [0, 0, 0]
    for _ in range(3):
        world, index = np.unravel_index(along.argmax(), along.shape)
        axes[2 - world] = 2 - int(index)
        along[world, :] = along[:, index] = -1
    return axes[0], axes[1], axes[2]


def _on_grid_of_a(a: Segmentation, b: Segmentation) -> tuple[Segmentation, list[str]]:
    """B on A's grid, and what happened to it, in sentences."""
    if same_grid(a.image, b.image):
        return b, []
    if not _overlap(a.image, b.image):
        raise GeometryError(
            f"A ({describe_grid(a.image)}) and B ({describe_grid(b.image)}) lie in different "
            "places and share no voxel; compare segmentations of the same image."
        )
    notes = [
        f"The grids differ: B ({describe_grid(b.image)}) was brought onto A's "
        f"({describe_grid(a.image)}) by nearest neighbour."
    ]
    outside = _share_outside(b.image, a.image)
    if outside > 0.001:
        notes.append(
            f"{outside:.1%} of B's structures lie outside A's image and are not part of Dice and "
            "distances; they are part of B's volumes."
        )
    return replace(b, image=on_grid_of(b.image, a.image, linear=False)), notes


def _overlap(a: sitk.Image, b: sitk.Image) -> bool:
    """Whether the boxes of two grids meet in the patient, seen along A's axes."""
    edges = itertools.product(*((-0.5, size - 0.5) for size in b.GetSize()))
    points = [b.TransformContinuousIndexToPhysicalPoint(edge) for edge in edges]
    corners = np.array([a.TransformPhysicalPointToContinuousIndex(point) for point in points])
    return bool(
        np.all(corners.max(axis=0) > -0.5)
        and np.all(corners.min(axis=0) < np.array(a.GetSize()) - 0.5)
    )


def _share_outside(labelmap: sitk.Image, grid: sitk.Image) -> float:
    """The share of a label map's labelled voxels whose centres lie outside `grid`."""
    everywhere = sitk.Image(grid.GetSize(), sitk.sitkUInt8) + 1
    everywhere.CopyInformation(grid)
    inside = sitk.GetArrayFromImage(on_grid_of(everywhere, labelmap, linear=False)) != 0
    labelled = sitk.GetArrayFromImage(labelmap) != 0
    return np.count_nonzero(labelled & ~inside) / max(1, np.count_nonzero(labelled))


def volumes_by_value_ml(labelmap: sitk.Image) -> dict[int, float]:
    """The volume of each value in a label map; names may repeat, values do not."""
    direction = np.reshape(labelmap.GetDirection(), (3, 3))
    voxel_ml = float(abs(np.linalg.det(direction))) * math.prod(labelmap.GetSpacing()) / 1000
    counts = counts_by_value(sitk.GetArrayViewFromImage(labelmap))
    return {int(value): int(counts[value]) * voxel_ml for value in np.flatnonzero(counts)}


def _measured(row: Row, a: NDArray, b: NDArray, image: sitk.Image, tolerance_mm: float) -> Row:
    spacing_mm = spacing_of(image)
    score = score_masks(row.a, a, b, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)
    axis = axial_axis(image)
    in_plane = [other for other in range(3) if other != axis]
    pixel_mm2 = math.prod(spacing_mm[other] for other in in_plane)
    slices = np.moveaxis(a ^ b, axis, 0)
    areas = [int(np.count_nonzero(pixels)) * pixel_mm2 for pixels in slices]
    worst = int(np.argmax(areas))
    relative = row.volume_a_ml / row.volume_b_ml - 1 if row.volume_b_ml else math.nan
    return replace(
        row,
        dice=score.dice,
        hd95_mm=score.hd95_mm,
        nsd=score.nsd,
        difference_percent=100 * relative,
        worst_slice=worst if areas[worst] else None,
        worst_slice_mm2=areas[worst],
    )


def _codes(label: Label) -> tuple[str, ...]:
    """What a terminology string means: scheme and value of its codes, from the type on.

    The category before it and the names of the contexts differ between programs for one structure.
    """
    codes = [field.split("^")[:2] for field in label.terminology.split("~")[2:] if "^" in field]
    return tuple(":".join(code) for code in codes) if codes and any(codes[0]) else ()


def _folded(label: Label) -> str:
    return " ".join(label.name.casefold().replace("_", " ").split())


def _value(label: Label) -> int:
    return label.value


def _name(a: Label | None, b: Label | None) -> str:
    if a and b and _folded(a) != _folded(b):
        return f"{a.name} / {b.name}"
    return (a or b).name


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
