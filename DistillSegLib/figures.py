"""Slices of one or two segmentations as figures of a page: pictures, captions, words for each.

Drawn as radiologists read them, in true proportions: superior up, anterior up or to the left, and
the patient's right to the left of the viewer.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.boxes import bounding_box, grown, voxels_within
from DistillSegLib.comparison import Comparison, Row
from DistillSegLib.disagreement import anatomical_axes
from DistillSegLib.geometry import on_grid_of, reorient, same_grid, spacing_of
from DistillSegLib.labels import Label
from DistillSegLib.pictures import outline, png, shaded
from DistillSegLib.segmentations import Segmentation

PIXELS = 320  # along the longer side of a picture
AXIAL_SLICES = 5
MARGIN_MM = 12.0  # of image around the structures
# Told apart also by colour-blind people (Okabe and Ito 2008).
BLUE, ORANGE, PURPLE, GREY = "#0072B2", "#E69F00", "#CC79A7", "#B8B8B8"
SKY = "#56B4E9"  # blue that is seen as a thin line on dark tissue


@dataclass(frozen=True)
class Plane:
    """How slices across one axis of an LPS volume (z, y, x) are shown.

    Attributes:
        name: of the slices.
        axis: the array axis that they are stacked along.
        letters: what lies at the left, the right, the top and the bottom of the picture.
        ends: the letters of the position's negative and positive side along the axis.
    """

    name: str
    axis: int
    letters: str
    ends: str


PLANES = (
    Plane("Axial", 0, "RLAP", "IS"),
    Plane("Coronal", 1, "RLSI", "AP"),
    Plane("Sagittal", 2, "APSI", "RL"),
)


@dataclass(frozen=True)
class Structure:
    """One structure of the pictures: its number in the maps, its colour, and what is measured."""

    number: int
    name: str
    color: str
    row: Row | None


@dataclass(frozen=True)
class Scene:
    """What the pictures show, in LPS order: z to superior, y to posterior, x to the left.

    Attributes:
        stored: the grid of the file, for the indices that people know.
        grid: the same grid in LPS order.
        image: (D, H, W) grey values, or None.
        a, b: (D, H, W) numbers of `structures`; b is None where there is nothing to compare.
        window: the grey values shown as black and as white.
        box: the part of the volume that is shown.
    """

    stored: sitk.Image
    grid: sitk.Image
    image: NDArray | None
    a: NDArray[np.uint16]
    b: NDArray[np.uint16] | None
    structures: tuple[Structure, ...]
    window: tuple[float, float]
    box: tuple[slice, ...]


def scene_of(
    image: sitk.Image | None, a: Segmentation, comparison: Comparison | None = None
) -> Scene:
    """What is to be shown of `a`, or of the two segmentations of a comparison.

    Args:
        image: what was segmented, on any grid of the patient; None for a dark ground.
    """
    if image is not None and not same_grid(image, a.image):
        image = on_grid_of(image, a.image, linear=True)
    if comparison:
        pairs = [(row.a, row.b, row) for row in comparison.rows]
    else:
        pairs = [(label, None, None) for label in a.labels]
    structures = tuple(_structure(i, *pair) for i, pair in enumerate(pairs, start=1))
    numbers_a = {p[0].value: s.number for p, s in zip(pairs, structures) if p[0]}
    numbers_b = {p[1].value: s.number for p, s in zip(pairs, structures) if p[1]}
    grid = reorient(a.image, "LPS")
    map_a = _renumbered(grid, numbers_a)
    map_b = _renumbered(reorient(comparison.b.image, "LPS"), numbers_b) if comparison else None
    shown = map_a != 0 if map_b is None else (map_a != 0) | (map_b != 0)
    box = _around(shown, spacing_of(grid))
    voxels = sitk.GetArrayFromImage(reorient(image, "LPS")) if image is not None else None
    window = _window(voxels[box], shown[box]) if voxels is not None else (0.0, 1.0)
    return Scene(a.image, grid, voxels, map_a, map_b, structures, window, box)


def _structure(number: int, a: Label | None, b: Label | None, row: Row | None) -> Structure:
    label = a or b
    color = "#" + "".join(f"{part:02x}" for part in label.color)
    return Structure(number, row.structure if row else label.name, color, row)


def _renumbered(labelmap: sitk.Image, numbers: dict[int, int]) -> NDArray[np.uint16]:
    voxels = sitk.GetArrayFromImage(labelmap)
    table = np.zeros(max(int(voxels.max()), *numbers, 0) + 1, np.uint16)
    for value, number in numbers.items():
        table[value] = number
    return table[voxels]


def _around(shown: NDArray[np.bool_], spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """The box of all structures with a margin, within the volume; all of it if there are none."""
    box = bounding_box(shown)
    if box is None:
        return tuple(slice(0, size) for size in shown.shape)
    return grown(box, voxels_within(MARGIN_MM, spacing_mm), shown.shape)


def _window(image: NDArray, inside: NDArray[np.bool_]) -> tuple[float, float]:
    """Grey values shown as black and white: 400 HU about the structures in CT, else percentiles."""
    if image.min() < -500 and inside.any():  # air in Hounsfield units
        middle = float(np.median(image[inside]))
        return middle - 200, middle + 200
    low, high = np.percentile(image, (0.5, 99.5))
    return float(low), float(high)


def chosen_slices(scene: Scene) -> list[tuple[Plane, int, str]]:
    """(plane, LPS index, why) of the slices to show, axial ones from superior to inferior."""
    chosen = []
    for plane in PLANES:
        in_plane = [size for axis, size in enumerate(scene.a.shape) if axis != plane.axis]
        if min(in_plane) > 1:  # a single slice is no volume to be cut across
            slices = _axial_slices(scene) if plane.axis == 0 else _one_slice(scene, plane)
            chosen += [(plane, index, why) for index, why in slices]
    return chosen


def _axial_slices(scene: Scene) -> list[tuple[int, str]]:
    """Where the structures differ most, and then evenly through the structures."""
    chosen: dict[int, str] = {}
    measured = [s for s in scene.structures if s.row and s.row.worst_slice is not None]
    measured.sort(key=lambda structure: -structure.row.worst_slice_mm2)
    for structure in measured[:2]:
        index = _oriented_index(scene, structure.row.worst_slice)
        text = f"largest difference of {structure.name}, {structure.row.worst_slice_mm2:.0f} mm²"
        chosen[index] = f"{chosen[index]}; {text}" if index in chosen else text
    present = np.flatnonzero(_per_slice(_labelled(scene), 0))
    if not present.size:
        return [(scene.a.shape[0] // 2, "")]
    apart = max(1, present.size // (2 * AXIAL_SLICES))
    for share in (0.5, 0.2, 0.8, 0.35, 0.65):
        index = int(present[round(share * (present.size - 1))])
        if len(chosen) < AXIAL_SLICES and all(abs(index - other) >= apart for other in chosen):
            chosen[index] = ""
    return sorted(chosen.items(), reverse=True)


def _one_slice(scene: Scene, plane: Plane) -> list[tuple[int, str]]:
    """Where most is labelled. Not where most differs, which would be a slice along a surface."""
    labelled = _per_slice(_labelled(scene), plane.axis)
    return [(int(labelled.argmax()) if labelled.any() else len(labelled) // 2, "")]


def _labelled(scene: Scene) -> NDArray[np.bool_]:
    return scene.a != 0 if scene.b is None else (scene.a != 0) | (scene.b != 0)


def _per_slice(mask: NDArray[np.bool_], axis: int) -> NDArray[np.int64]:
    return np.array([np.count_nonzero(pixels) for pixels in np.moveaxis(mask, axis, 0)])


def _oriented_index(scene: Scene, axial: int) -> int:
    """The LPS index of an axial slice, given by its index in the file."""
    center = [(size - 1) / 2 for size in scene.stored.GetSize()]
    center[2 - anatomical_axes(scene.stored)[0]] = axial
    point = scene.stored.TransformContinuousIndexToPhysicalPoint(center)
    index = round(scene.grid.TransformPhysicalPointToContinuousIndex(point)[2])
    return min(max(index, 0), scene.a.shape[0] - 1)


def cut(scene: Scene, volume: NDArray | None, plane: Plane, index: int) -> NDArray | None:
    """The part of a slice that is shown, as it is looked at: (rows, columns)."""
    if volume is None:
        return None
    rows, columns = (axis for axis in range(3) if axis != plane.axis)
    pixels = np.take(volume, index, plane.axis)[scene.box[rows], scene.box[columns]]
    return pixels if plane.axis == 0 else pixels[::-1]  # superior up


def place_of(scene: Scene, plane: Plane, index: int) -> tuple[int, float]:
    """The slice's index in the file, and its position in mm along the patient's axis (LPS)."""
    center = [(size - 1) / 2 for size in scene.grid.GetSize()]
    center[2 - plane.axis] = index
    point = scene.grid.TransformContinuousIndexToPhysicalPoint(center)
    stored = scene.stored.TransformPhysicalPointToContinuousIndex(point)
    return round(stored[2 - anatomical_axes(scene.stored)[plane.axis]]), point[2 - plane.axis]


def figure(scene: Scene, names: Sequence[str], plane: Plane, index: int, why: str, key: str) -> str:
    """One slice as a figure: a picture of each segmentation, the outlines and the difference.

    Args:
        names: of A, or of A and B; any text.
        index: of the slice in LPS order.
        why: why this slice is shown; any text.
        key: begins the ids of this figure's parts, unique on the page.
    """
    rows, columns = (axis for axis in range(3) if axis != plane.axis)

    spacing_mm = spacing_of(scene.grid)
    stored, position_mm = place_of(scene, plane, index)
    place = f"{plane.name} slice {stored}, {plane.ends[position_mm >= 0]} {abs(position_mm):.1f} mm"
    steps_mm = (spacing_mm[rows], spacing_mm[columns])
    image, a, b = (cut(scene, v, plane, index) for v in (scene.image, scene.a, scene.b))
    pictures = _Pictures(key, plane.letters, steps_mm, scene.structures, a, b)
    panels = "".join(
        f'<div class="panel"><p>{escaped(heading)}</p>{pictures.panel(drawing, place, words)}</div>'
        for heading, drawing, words in pictures.panels(names)
    )
    return (
        f"<figure><figcaption><b>{place}</b>{' · ' if why else ''}{escaped(why)}"
        f'<br><span class="small">{pictures.areas()}</span></figcaption>'
        f"{pictures.definitions(image, scene.window)}"
        f'<div class="panels">{panels}</div></figure>'
    )


@dataclass(frozen=True)
class _Pictures:
    """The pictures of one slice, as SVG in millimetres.

    Attributes:
        key: begins the ids.
        letters: of the left, right, top and bottom side.
        spacing_mm: of rows and columns.
        a, b: (H, W) numbers of `structures`; b may be None.
    """

    key: str
    letters: str
    spacing_mm: tuple[float, float]
    structures: tuple[Structure, ...]
    a: NDArray[np.uint16]
    b: NDArray[np.uint16] | None

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width."""
        return self.a.shape[0] * self.spacing_mm[0], self.a.shape[1] * self.spacing_mm[1]

    def definitions(self, image: NDArray | None, window: tuple[float, float]) -> str:
        """What the panels share: the grey picture, and each outline once."""
        height, width = self.size_mm
        parts = []
        if image is not None:
            data = png(shaded(image, self.spacing_mm, window, longest=PIXELS))
            parts.append(
                f'<image id="{self.key}i" width="{width:.6g}" height="{height:.6g}" '
                'preserveAspectRatio="none" '
                f'href="data:image/png;base64,{base64.b64encode(data).decode("ascii")}"/>'
            )
        for side, numbers in (("a", self.a), ("b", self.b)):
            for structure in self._present(numbers):
                name = f"{self.key}{side}{structure.number}"
                path = outline(numbers == structure.number, self.spacing_mm)
                parts.append(f'<path id="{name}" d="{path}"/>')
                parts.append(f'<clipPath id="{name}c"><use href="#{name}"/></clipPath>')
        return f'<svg class="definitions" aria-hidden="true"><defs>{"".join(parts)}</defs></svg>'

    def panel(self, drawing: str, place: str, words: str) -> str:
        """One picture: grey values, a drawing upon them, letters of the sides and a scale bar."""
        height, width = self.size_mm
        bar = max(step for step in (1, 2, 5, 10, 20, 50, 100) if step <= max(width / 4, 1))
        font = width / 15
        left, right, top, bottom = self.letters
        texts = "".join(
            f'<text x="{x:.6g}" y="{y:.6g}">{letter}</text>'
            for letter, x, y in (
                (left, font * 0.6, height / 2),
                (right, width - font * 0.6, height / 2),
                (top, width / 2, font * 0.6),
                (bottom, width / 2, height - font * 0.6),
            )
        )
        x, y = width - font * 0.5 - bar, height - font * 0.5
        scale = (
            f'<path class="bar" d="M{x:.6g} {y:.6g}h{bar}"/>'
            f'<text x="{x + bar / 2:.6g}" y="{y - font * 0.7:.6g}" '
            f'font-size="{font * 0.75:.4g}">{bar} mm</text>'
        )
        return (
            f'<svg viewBox="0 0 {width:.6g} {height:.6g}" role="img" '
            f'aria-label="{place}: {escaped(words)}" font-size="{font:.4g}">'
            f'<use href="#{self.key}i"/>{drawing}{texts}{scale}</svg>'
        )

    def panels(self, names: Sequence[str]) -> list[tuple[str, str, str]]:
        """(heading, drawing, the same in words) of each picture."""
        panels = [(f"A · {names[0]}", self._filled("a", self.a), f"A {self._listed(self.a)}")]
        if self.b is None:
            lines = "".join(self._line("a", s, s.color) for s in self._present(self.a))
            return [("Image", "", "the image"), *panels, ("Outlines", lines, "the outlines of A")]
        lines = "".join(self._line("a", s, SKY) for s in self._present(self.a))
        lines += "".join(self._line("b", s, ORANGE, "dashed") for s in self._present(self.b))
        return [
            *panels,
            (f"B · {names[1]}", self._filled("b", self.b), f"B {self._listed(self.b)}"),
            (
                "Outlines: A solid, B dashed",
                lines,
                "outlines of A, solid blue, and of B, dashed orange",
            ),
            ("Difference", self._difference(), self.areas()),
        ]

    def areas(self) -> str:
        """How much of the slice agrees and differs, in words."""
        pixel_mm2 = math.prod(self.spacing_mm)
        if self.b is None:
            return f"{np.count_nonzero(self.a) * pixel_mm2:.0f} mm² labelled"
        both, same = (self.a != 0) & (self.b != 0), self.a == self.b
        masks = {
            "agree": both & same,
            "only A": (self.a != 0) & ~both,
            "only B": (self.b != 0) & ~both,
            "another structure": both & ~same,
        }
        areas = {name: np.count_nonzero(mask) * pixel_mm2 for name, mask in masks.items()}
        told = [f"{name} {area:.0f} mm²" for name, area in areas.items()]
        return ", ".join(told if areas["another structure"] else told[:3])

    def _present(self, numbers: NDArray | None) -> list[Structure]:
        found = set() if numbers is None else set(np.unique(numbers).tolist())
        return [structure for structure in self.structures if structure.number in found]

    def _listed(self, numbers: NDArray) -> str:
        names = ", ".join(structure.name for structure in self._present(numbers))
        return f"filled: {names or 'nothing on this slice'}"

    def _use(self, side: str, structure: Structure, attributes: str) -> str:
        return f'<use href="#{self.key}{side}{structure.number}" {attributes}/>'

    def _filled(self, side: str, numbers: NDArray) -> str:
        return "".join(
            self._use(side, s, f'class="filled" fill="{s.color}" stroke="{s.color}"')
            for s in self._present(numbers)
        )

    def _line(self, side: str, structure: Structure, color: str, style: str = "") -> str:
        # A dark line beneath keeps the coloured one visible on bright tissue.
        return self._use(side, structure, 'class="line under"') + self._use(
            side, structure, f'class="line {style}" stroke="{color}"'
        )

    def _difference(self) -> str:
        """Only A and only B, covered where both are: first by another structure, then by agree."""
        in_a, in_b = self._present(self.a), self._present(self.b)
        only = [self._use("a", s, f'fill="{BLUE}"') for s in in_a]
        only += [self._use("b", s, f'fill="{ORANGE}"') for s in in_b]
        shared = [
            self._shared(s, other)
            for agree in (False, True)
            for s in in_a
            for other in in_b
            if (s == other) is agree and ((self.a == s.number) & (self.b == other.number)).any()
        ]
        return f'<g class="difference">{"".join(only + shared)}</g>'

    def _shared(self, s: Structure, other: Structure) -> str:
        """What is `s` in A and `other` in B."""
        use = self._use("a", s, f'fill="{GREY if s == other else PURPLE}"')
        return f'<g clip-path="url(#{self.key}b{other.number}c)">{use}</g>'


def escaped(value: object) -> str:
    """Any text as HTML shows it, also in attributes; half characters and controls become "?"."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return html.escape("".join(c if c.isprintable() else "?" for c in text))
