"""The picture of a gallery: slices of some cases with the outlines of model and reference."""

from __future__ import annotations

import base64
import math
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from plots import line, page, words

from DistillSegLib.comparison import Comparison
from DistillSegLib.figures import BLUE, ORANGE, PLANES, SKY, Plane, Scene, cut, place_of
from DistillSegLib.geometry import spacing_of
from DistillSegLib.manifest import Manifest
from DistillSegLib.pictures import outline, png, shaded

GREEN, RED = "#009E73", "#D55E00"
CELL, GAP, EDGE = 236, 10, 16  # pixels
TALLEST = 215
THICK = 2.0  # times the finest spacing: only slices of the stack are worth a look


@dataclass(frozen=True)
class Shown:
    """A case of the gallery.

    Attributes:
        rank: "Best", "Median" or "Worst".
        scene: A is the model, B the reference label map.
        other: (D, H, W) numbers of the scene's structures as a second model sees them, or None.
        other_dice: the second model's mean Dice.
    """

    rank: str
    case: str
    comparison: Comparison
    scene: Scene
    other: NDArray | None = None
    other_dice: float = math.nan


@dataclass(frozen=True)
class Tile:
    """A slice: where it is, and why it is shown."""

    plane: Plane
    index: int
    why: str


def tiles(scene: Scene) -> list[Tile]:
    """Three slices: largest reference area, largest difference, and one more.

    In voxels that are about as deep as wide, each is of another plane; the difference is looked for
    across the structure's length, as a slice along a surface differs in much and says little. Of
    thick slices, only the stack itself is shown.
    """
    spacing = spacing_of(scene.grid)
    area = [_per_slice(scene.b != 0, axis) for axis in range(3)]
    if max(spacing) >= THICK * min(spacing):
        return _of_stack(scene, PLANES[int(np.argmax(spacing))])
    cross = [area[n].max() * np.prod(np.delete(spacing, n)) for n in range(3)]
    widest, middle, narrowest = np.argsort(cross)[::-1]
    differs = _per_slice(scene.a != scene.b, narrowest)
    chosen = [
        Tile(PLANES[widest], int(area[widest].argmax()), "largest area"),
        Tile(PLANES[narrowest], int(differs.argmax()), "largest difference"),
        Tile(PLANES[middle], int(area[middle].argmax()), "largest area"),
    ]
    return sorted(chosen, key=lambda tile: tile.plane.axis)  # in every row the same


def _of_stack(scene: Scene, plane: Plane) -> list[Tile]:
    """The slices of a stack: largest area, then those that differ most."""
    first = int(_per_slice(scene.b != 0, plane.axis).argmax())
    differs = _per_slice(scene.a != scene.b, plane.axis)
    order = [int(index) for index in np.argsort(-differs, kind="stable") if index != first]
    why, texts = "largest area", ("largest difference", "second largest")
    if differs[first] >= differs.max():
        why, texts = "largest area and difference", ("second largest", "third largest")
    more = [Tile(plane, index, text) for index, text in zip(order, texts)]
    return [Tile(plane, first, why), *more]


def _per_slice(mask: NDArray[np.bool_], axis: int) -> NDArray[np.int64]:
    return np.count_nonzero(mask, axis=tuple(n for n in range(3) if n != axis))


def gallery(manifest: Manifest, shown: Sequence[Shown], cases: int, other: str = "") -> str:
    """The picture as SVG.

    Args:
        cases: how many the shown ones were chosen from.
        other: the second model's name.
    """
    rows = [(each, tiles(each.scene)) for each in shown]
    sizes = [_size_mm(each.scene, tile) for each, chosen in rows for tile in chosen]
    scale = min(min(CELL / wide, TALLEST / high) for high, wide in sizes)
    title = f"{manifest.title}: best, median and worst of {cases} held-out cases"
    parts = [words(EDGE, 22, title, "start", 15, bold=True)]
    parts += _legend(manifest, other, pictured=shown[0].scene.image is not None)
    y = 88.0 if shown[0].scene.image is None else 68.0
    for each, chosen in rows:
        head = list(_heading(each, other))
        for n, text in enumerate(head):
            parts.append(words(EDGE, y + 14 * n, text, "start", 11 if n else 13, bold=not n))
        y += 14 * len(head) - 4
        height = scale * max(_size_mm(each.scene, tile)[0] for tile in chosen)
        for n, tile in enumerate(chosen):
            parts += _drawn(each, tile, EDGE + n * (CELL + GAP), y, scale, height)
        y += height + 42
    foot = "Dashes upon the solid line: both agree. " + _bar_words(scale)
    if shown[0].scene.image is None:
        foot += " No image is shown; faint areas are those of the reference."
    for text in (foot, *textwrap.wrap(f"{manifest.attribution} {manifest.licence}.", 128)):
        parts.append(words(EDGE, y, text, "start", 10.5))
        y += 14
    return page(y + 2, parts)


def _heading(each: Shown, other: str) -> Iterator[str]:
    """Which case, and how good each structure is."""
    means = [f"mean Dice {mean_dice(each.comparison):.3f}"]
    if each.other is not None:
        means.append(f"of {other} {each.other_dice:.3f}")
    yield f"{each.rank}: {each.case}, {', '.join(means)}"
    texts = [
        f"{row.structure.split(' / ')[0]}: Dice {row.dice:.3f}, {_distance(row.hd95_mm)}"
        for row in each.comparison.rows
    ]
    yield from textwrap.wrap(" · ".join(texts), 120)


def _distance(hd95_mm: float) -> str:
    return f"HD95 {hd95_mm:.1f} mm" if math.isfinite(hd95_mm) else "missed"


def mean_dice(comparison: Comparison) -> float:
    """Over the structures that one of both holds."""
    known = [row.dice for row in comparison.rows if not math.isnan(row.dice)]
    return statistics.fmean(known) if known else math.nan


def _size_mm(scene: Scene, tile: Tile) -> tuple[float, float]:
    """Height and width of a slice's shown part."""
    axes = (axis for axis in range(3) if axis != tile.plane.axis)
    spacing = spacing_of(scene.grid)
    high, wide = ((scene.box[n].stop - scene.box[n].start) * spacing[n] for n in axes)
    return high, wide


def _drawn(
    each: Shown, tile: Tile, left: float, top: float, scale: float, height: float
) -> Iterator[str]:
    """A slice: ground, areas, outlines, and its words below."""
    scene = each.scene
    high, wide = _size_mm(scene, tile)
    foot, top = top + height, top + (height - scale * high) / 2
    spacing = tuple(np.delete(spacing_of(scene.grid), tile.plane.axis).tolist())
    x = left + (CELL - scale * wide) / 2
    yield f'<g transform="translate({x:.2f} {top:.2f}) scale({scale:.5g})" fill-rule="evenodd">'
    yield f'<rect width="{wide:.6g}" height="{high:.6g}" fill="#F4F4F2"/>'
    image = cut(scene, scene.image, tile.plane, tile.index)
    a, b, other = (cut(scene, v, tile.plane, tile.index) for v in (scene.a, scene.b, each.other))
    if image is not None:
        pixels = png(shaded(image, spacing, scene.window, longest=2 * CELL))
        data = base64.b64encode(pixels).decode("ascii")
        size = f'width="{wide:.6g}" height="{high:.6g}" preserveAspectRatio="none"'
        yield f'<image {size} href="data:image/png;base64,{data}"/>'
    for structure in scene.structures:
        numbers = (structure.number, spacing)
        if image is None:
            yield _path(b, *numbers, f'fill="{structure.color}" fill-opacity="0.22"')
        yield _path(a, *numbers, _pen(BLUE if image is None else SKY, 1.8 / scale))
        color, dashes = RED if image is None else ORANGE, f"{4 / scale:.3g} {3.5 / scale:.3g}"
        yield _path(b, *numbers, _pen(color, 1.8 / scale, dashes))
        if other is not None:
            yield _path(other, *numbers, _pen(GREEN, 2.4 / scale, f"0 {5 / scale:.3g}"))
    yield "</g>"
    yield _bar(x, top, scale, wide, high, dark=image is None)
    stored, _ = place_of(scene, tile.plane, tile.index)
    stack = max(spacing_of(scene.grid)) >= THICK * min(spacing_of(scene.grid))
    name = f"Slice {stored}" if stack else f"{tile.plane.name} {stored}"
    area = np.count_nonzero(a != b) * spacing[0] * spacing[1]
    text = f"{name}, {tile.why}; {area:.0f} mm² differ"
    yield words(left + CELL / 2, foot + 15, text, "middle", 10.5)


def _path(numbers: NDArray, number: int, spacing_mm: tuple[float, float], attributes: str) -> str:
    path = outline(numbers == number, spacing_mm)
    return f'<path d="{path}" {attributes}/>' if path else ""


def _pen(color: str, width: float, dashes: str = "") -> str:
    style = f' stroke-dasharray="{dashes}"' if dashes else ""
    pen = f'fill="none" stroke="{color}" stroke-width="{width:.3g}"{style}'
    return f'{pen} stroke-linecap="round"' if dashes.startswith("0 ") else pen


def _bar_mm(scale: float) -> int:
    return max(step for step in (1, 2, 5, 10, 20, 50) if step * scale <= CELL / 4)


def _bar_words(scale: float) -> str:
    return f"Bars: {_bar_mm(scale)} mm."


def _bar(x: float, top: float, scale: float, wide: float, high: float, *, dark: bool) -> str:
    right, y = x + scale * wide - 6, top + scale * high - 6
    return line(right - scale * _bar_mm(scale), y, right, y, "#333" if dark else "#fff", 2)


def _legend(manifest: Manifest, other: str, *, pictured: bool) -> Iterator[str]:
    """The lines, and the structures' colours where these are shown."""
    entries = [(f"model {manifest.id}", _pen(SKY if pictured else BLUE, 2))]
    entries.append(("reference label map", _pen(ORANGE if pictured else RED, 2, "4 3.5")))
    if other:
        entries.append((f"model {other}", _pen(GREEN, 2.4, "0 5")))
    x = float(EDGE)
    for text, pen in entries:
        yield f'<path d="M{x:.0f} 40h26" {pen}/>'
        yield words(x + 32, 44, text, "start")
        x += 52 + 6.4 * len(text)
    x = float(EDGE)
    for label in () if pictured else manifest.labels:
        color = "#" + "".join(f"{part:02x}" for part in label.color)
        yield f'<rect x="{x:.0f}" y="52" width="12" height="12" fill="{color}" fill-opacity="0.4"/>'
        yield words(x + 18, 62, label.name, "start")
        x += 36 + 6.4 * len(label.name)
