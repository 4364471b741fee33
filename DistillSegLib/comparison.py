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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.boxes import Box, box_around, grown, voxels_within
from DistillSegLib.disagreement import (
    PLANES,
    Disagreement,
    anatomical_axes,
    differing_point_mm,
    disagreement,
    map_of,
    point_mm,
    positions_mm,
    signed_distance_mm,
)
from DistillSegLib.errors import Cancelled, GeometryError
from DistillSegLib.files import write_text
from DistillSegLib.geometry import describe_grid, on_grid_of, same_grid, spacing_of
from DistillSegLib.labels import Label
from DistillSegLib.matching import Match, by_hand, folded, match, overlaps_of
from DistillSegLib.metrics import score_masks
from DistillSegLib.runs import boxes_by_value
from DistillSegLib.segmentations import Segmentation, read_segmentation, volumes_by_value_ml
from DistillSegLib.windows import ignore, never

FRAME_OF_REFERENCE = "0020|0052"  # the DICOM tag

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
        disagreement: the same for every slice and plane; None where only one has the structure.
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
    disagreement: Disagreement | None = field(default=None, repr=False, compare=False)

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

    def positions_mm(self, plane: str) -> NDArray[np.float64]:
        """Where the slices of "axial", "coronal" or "sagittal" lie, as a slice view's slider."""
        return positions_mm(self.a.image, plane)

    def place_of(self, row: Row, plane: str, index: int) -> NDArray[np.float64]:
        """The RAS point in the middle of what differs in a slice of a plane."""
        box = row.disagreement.box
        masks = self._masks(row, box)
        return differing_point_mm(*masks, box, self.a.image, plane=plane, index=index)

    def extent_of(self, row: Row) -> tuple[NDArray[np.float64], dict[str, float]]:
        """The RAS point in the middle of a structure, and by plane how far it reaches, in mm.

        Across is along the plane's normal: an axial slice shows "sagittal" by "coronal" mm of it.
        """
        box = row.disagreement.box
        middle = [(part.start + part.stop - 1) / 2 for part in box[::-1]]
        spacing_mm, axes = spacing_of(self.a.image), anatomical_axes(self.a.image)
        sizes = [float((box[axis].stop - box[axis].start) * spacing_mm[axis]) for axis in axes]
        return point_mm(self.a.image, middle), dict(zip(PLANES, sizes))

    def difference(self, rows: Sequence[Row] | None = None) -> sitk.Image:
        """Where A and B agree (1), only A is (2) and only B is (3), on A's grid, cut to the rows.

        By default of all structures that both know. What A and B give to different structures is
        shown as only A.
        """
        rows = [row for row in (self.rows if rows is None else rows) if row.disagreement]
        box = box_around([row.disagreement.box for row in rows]) or _corner(self.a.image)
        found = np.zeros([part.stop - part.start for part in box], np.uint8)
        for row in rows:
            inner = zip(row.disagreement.box, box)
            part = found[tuple(slice(i.start - o.start, i.stop - o.start) for i, o in inner)]
            new = map_of(*self._masks(row, row.disagreement.box))
            stronger = (new > 0) & ((part == 0) | (new < part))
            part[stronger] = new[stronger]
        return self._cut(found, box)

    def distance_to_a(self, row: Row, *, rim_mm: float = 10.0) -> sitk.Image:
        """How far each voxel lies from A's surface in mm, negative inside A, as float32.

        Read along the outline of B, it tells where B is larger (positive) or smaller than A. It is
        on A's grid, cut to both with a rim around them.

        Raises:
            GeometryError: A holds no voxel of the structure.
        """
        spacing_mm, size = spacing_of(self.a.image), self.a.image.GetSize()[::-1]
        rims = voxels_within(rim_mm, spacing_mm)
        box = grown(row.disagreement.box, rims, size) if row.disagreement else None
        mask = self._masks(row, box)[0] if box else np.zeros(0, bool)
        if not mask.any():
            raise GeometryError(
                f"A has no voxel of '{row.structure}', so nothing has a distance to it; choose "
                "another structure."
            )
        return self._cut(signed_distance_mm(mask, spacing_mm), box)

    def _cut(self, voxels: NDArray, box: Box) -> sitk.Image:
        """What was computed on a box of A's grid, as an image in its place."""
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing(self.a.image.GetSpacing())
        image.SetDirection(self.a.image.GetDirection())
        first = [part.start for part in box[::-1]]
        image.SetOrigin(self.a.image.TransformIndexToPhysicalPoint(first))
        return image

    def _masks(self, row: Row, box: Box) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        image_a, image_b = self.a.image, self.b.image  # bound: the arrays are views of them
        a, b = sitk.GetArrayViewFromImage(image_a), sitk.GetArrayViewFromImage(image_b)
        return a[box] == row.a.value, b[box] == row.b.value

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
    a: Segmentation | Path | str,
    b: Segmentation | Path | str,
    *,
    tolerance_mm: float = 1.0,
    rest: Literal["value", "overlap"] = "value",
    pairs: Sequence[tuple[int | None, int | None]] | None = None,
    on_progress: Callable[[float], None] = ignore,
    cancelled: Callable[[], bool] = never,
) -> Comparison:
    """Compare two segmentations, given as such or as files.

    Structures are matched by terminology, what is left by name, what is left by `rest` (unless the
    terminologies contradict each other). If the grids differ, B is brought onto A's by nearest
    neighbour, and `notes` says so.

    Args:
        rest: "value" for files, whose label values mean something; "overlap" where they do not.
        pairs: (A's value, B's value) of the structures to compare, None where one lacks it,
            instead of matching.

    Raises:
        GeometryError: if they do not overlap in the patient, or their frames of reference differ.
        Cancelled: between two structures.
    """
    a = a if isinstance(a, Segmentation) else read_segmentation(a)
    b = b if isinstance(b, Segmentation) else read_segmentation(b)
    _check_frames(a.image, b.image)
    moved, notes = _on_grid_of_a(a, b)
    voxels = sitk.GetArrayFromImage(a.image), sitk.GetArrayFromImage(moved.image)
    boxes = tuple(boxes_by_value(each) for each in voxels)
    volumes = volumes_by_value_ml(a.image), volumes_by_value_ml(b.image)
    if pairs is not None:
        matched = by_hand(a.labels, b.labels, pairs)
    else:
        matched = match(a.labels, b.labels, overlaps_of(*voxels) if rest == "overlap" else None)
    rows = []
    for number, (label_a, label_b, matched_by) in enumerate(matched, start=1):
        if cancelled():
            raise Cancelled("The comparison was cancelled.")
        row = Row(
            _name(label_a, label_b),
            matched_by,
            label_a,
            label_b,
            volume_a_ml=volumes[0].get(label_a.value, 0.0) if label_a else math.nan,
            volume_b_ml=volumes[1].get(label_b.value, 0.0) if label_b else math.nan,
        )
        if label_a and label_b:
            row = _measured(row, voxels, boxes, a.image, tolerance_mm)
        rows.append(row)
        on_progress(number / len(matched))
    return Comparison(a, moved, tuple(rows), tolerance_mm, (*notes, *_notes_on(rows)))


def _check_frames(a: sitk.Image, b: sitk.Image) -> None:
    """Refuse images whose coordinates belong to different frames of reference."""
    key = FRAME_OF_REFERENCE
    frames = [image.GetMetaData(key) for image in (a, b) if image.HasMetaDataKey(key)]
    if len(set(frames)) == 2:
        raise GeometryError(
            f"A and B belong to images with different frames of reference ({frames[0]} and "
            f"{frames[1]}): equal coordinates are not equal places in the patient. Register the "
            "images first."
        )


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


def _corner(image: sitk.Image) -> Box:
    """A small box, for what has no voxel."""
    return tuple(slice(0, min(2, size)) for size in image.GetSize()[::-1])


def _measured(row: Row, voxels: tuple, boxes: tuple, image: sitk.Image, tolerance_mm: float) -> Row:
    """A row with its numbers, measured on the box around both masks."""
    known = [found[i.value] for found, i in zip(boxes, (row.a, row.b)) if i.value in found]
    tight = box_around(known) or _corner(image)
    # With a rim of a voxel, for a flat structure in a volume is not a picture (see `metrics`).
    box = grown(tight, (1, 1, 1), image.GetSize()[::-1])
    a, b = voxels[0][box] == row.a.value, voxels[1][box] == row.b.value
    score = score_masks(row.a, a, b, spacing_mm=spacing_of(image), tolerance_mm=tolerance_mm)
    found = disagreement(a, b, box, image)
    areas = found.areas_mm2["axial"]
    worst = int(np.argmax(areas))
    relative = row.volume_a_ml / row.volume_b_ml - 1 if row.volume_b_ml else math.nan
    return replace(
        row,
        dice=score.dice,
        hd95_mm=score.hd95_mm,
        nsd=score.nsd,
        difference_percent=100 * relative,
        worst_slice=worst if areas[worst] else None,
        worst_slice_mm2=float(areas[worst]),
        disagreement=found,
    )


def _notes_on(rows: Sequence[Row]) -> list[str]:
    notes = []
    if not rows:
        notes.append("Neither of both holds a structure; there is nothing to compare.")
    for way, text in (("value", "their value in the files"), ("overlap", "how far they overlap")):
        if any(row.matched_by == way for row in rows):
            notes.append(
                f"Some structures share neither terminology nor name and were matched by {text}; "
                "check that they mean the same."
            )
    return notes


def _name(a: Label | None, b: Label | None) -> str:
    if a and b and folded(a) != folded(b):
        return f"{a.name} / {b.name}"
    return (a or b).name


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
