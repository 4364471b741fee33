"""Accuracy against cost: marks over a logarithmic axis, with names that do not cover each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from plots import BLUE, GREY, LETTER, ORANGE, WIDTH, around, dot, line, page, shares, ticks, words

LEFT, RIGHT, TOP, BOTTOM = 58, WIDTH - 20, 58, 360
GREEN, RED, PURPLE, SKY = "#009E73", "#D55E00", "#CC79A7", "#56B4E9"  # Okabe and Ito
BLACK, BROWN = "#000000", "#8C510A"
COLORS = (GREEN, RED, PURPLE, SKY, BLACK, GREY, BROWN)  # of studies, in turn
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Point:
    """What it costs and how good it is.

    Attributes:
        name: written beside a model's mark; shown under the pointer for a study's.
        study: the study that it is an arm of; empty for a model that ships.
        special: a reference among the models, the baseline among a study's arms.
    """

    name: str
    x: float
    y: float
    study: str = ""
    special: bool = False


@dataclass(frozen=True)
class Chart:
    """What is drawn.

    Attributes:
        aims: (height, words) of faint lines.
        note: a line below the legend.
    """

    title: str
    x_label: str
    y_label: str
    points: Sequence[Point]
    aims: Sequence[tuple[float, str]] = field(default=())
    note: str = ""


def scatter(chart: Chart) -> str:
    """The chart as SVG."""
    x, y = _scales(chart)
    parts = [words(LEFT - 42, 22, chart.title, "start", 15, bold=True)]
    parts += [words(LEFT - 42, 42, chart.y_label, "start"), *_axes(chart, x, y)]
    taken = [_box(x(p.x), y(p.y), 7) for p in chart.points]
    for height, text in chart.aims:
        parts.append(line(LEFT, y(height), RIGHT, y(height), ORANGE, 1, "5 4"))
        anchor, box = _aim_place(text, y(height), taken)
        at = {"start": box[0], "end": box[2]}[anchor]
        parts.append(words(at, box[3] - 5, text, anchor, 11, halo=True))
        taken.append(box)
    colors = colors_of(chart.points)
    for point in sorted(chart.points, key=lambda p: not p.study):  # models on top
        parts.append(_mark(point, x(point.x), y(point.y), colors))
    for point in chart.points:
        if not point.study:
            anchor, box = _label_place(point.name, x(point.x), y(point.y), taken)
            taken.append(box)
            at = {"start": box[0], "end": box[2], "middle": (box[0] + box[2]) / 2}[anchor]
            parts.append(words(at, box[3] - 3, point.name, anchor, halo=True))
    legend, height = _legend(chart, colors)
    return page(height, [*parts, *legend])


def colors_of(points: Sequence[Point]) -> dict[str, str]:
    """A colour for each study."""
    studies = dict.fromkeys(p.study for p in points if p.study)
    return {study: COLORS[n % len(COLORS)] for n, study in enumerate(studies)}


def _scales(chart: Chart) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """From cost and from accuracy to pixels."""
    left, right = around([math.log10(p.x) for p in chart.points])
    heights = [p.y for p in chart.points] + [height for height, _ in chart.aims]
    low, high = around(heights)
    return (
        lambda value: LEFT + (math.log10(value) - left) / (right - left) * (RIGHT - LEFT),
        lambda value: BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP),
    )


def _axes(chart: Chart, x: Callable, y: Callable) -> Iterator[str]:
    low, high = around([p.y for p in chart.points] + [height for height, _ in chart.aims])
    found = ticks(low, high)
    for tick, text in zip(found, shares(found)):
        yield line(LEFT, y(tick), RIGHT, y(tick), GREY, 0.5)
        yield words(LEFT - 8, y(tick) + 4, text, "end")
    costs = [p.x for p in chart.points]
    powers = range(math.floor(math.log10(min(costs))) - 1, math.ceil(math.log10(max(costs))) + 1)
    for tick in (m * 10.0**power for power in powers for m in (1, 2, 5)):
        if LEFT <= x(tick) <= RIGHT:
            yield line(x(tick), TOP, x(tick), BOTTOM, GREY, 0.5)
            yield words(x(tick), BOTTOM + 17, short(tick), "middle")
    yield words((LEFT + RIGHT) / 2, BOTTOM + 38, chart.x_label, "middle")


def short(number: float) -> str:
    """50000 as 50 k, 2000000 as 2 M."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _mark(point: Point, x: float, y: float, colors: dict[str, str]) -> str:
    if point.study:
        return dot(x, y, colors[point.study], 3.5, point.special, f"{point.study}: {point.name}")
    if point.special:
        corners = f"{x:.1f},{y - 7:.1f} {x + 7:.1f},{y:.1f} {x:.1f},{y + 7:.1f} {x - 7:.1f},{y:.1f}"
        return f'<polygon points="{corners}" fill="{ORANGE}" stroke="#333"/>'
    return dot(x, y, BLUE, 6)


def _box(x: float, y: float, half: float) -> Box:
    return x - half, y - half, x + half, y + half


def _aim_place(text: str, y: float, taken: Sequence[Box]) -> tuple[str, Box]:
    """Where a line's words cover least: at its right or left end, above or below it."""
    wide = 6 * len(text)
    places = [
        (anchor, (left, top, left + wide, top + 15))
        for top in (y - 14, y + 1)
        for anchor, left in (("end", RIGHT - 4 - wide), ("start", LEFT + 4))
    ]
    return min(places, key=lambda place: covered(place[1], taken))


def _label_place(text: str, x: float, y: float, taken: Sequence[Box]) -> tuple[str, Box]:
    """Where a name covers least: beside its mark, above or below it, further and further off."""
    wide, high = LETTER * len(text), 15
    places = []
    for off in (10, 20, 32):
        for anchor, left, middle in (
            ("start", x + off, y),
            ("end", x - off - wide, y),
            ("middle", x - wide / 2, y - off - 6),
            ("middle", x - wide / 2, y + off + 6),
        ):
            places.append((anchor, (left, middle - high / 2, left + wide, middle + high / 2)))
    inside = [place for place in places if _inside(place[1])]
    return min(inside or places, key=lambda place: covered(place[1], taken))


def _inside(box: Box) -> bool:
    return box[0] >= LEFT and box[1] >= TOP and box[2] <= RIGHT and box[3] <= BOTTOM


def covered(box: Box, taken: Sequence[Box]) -> float:
    """How much of what is drawn a box would cover."""
    return sum(overlap(box, other) for other in taken)


def overlap(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0) * max(high, 0)


def _legend(chart: Chart, colors: dict[str, str]) -> tuple[list[str], float]:
    """The marks' meanings below the chart, and the height of the page."""
    entries = [(Point("", 0, 0), "student")] if any(_is(p, "", False) for p in chart.points) else []
    if any(_is(p, "", True) for p in chart.points):
        entries.append((Point("", 0, 0, special=True), "reference"))
    if colors:
        meaning = "arms of studies: mostly far shorter, partly of other cases; hollow: baselines"
        entries.append((Point("", 0, 0, "any", True), meaning))
    entries += [(Point("", 0, 0, study), f"study {study}") for study in colors]
    parts, left, y = [], LEFT, BOTTOM + 64
    for point, text in entries:
        wide = 36 + 6 * len(text)
        if left > LEFT and left + wide > RIGHT:
            left, y = LEFT, y + 20
        parts.append(_mark(point, left + 6, y - 4, colors | {"any": "#555"}))
        parts.append(words(left + 18, y, text, "start"))
        left += wide
    if chart.note:
        y += 20
        parts.append(words(LEFT, y, chart.note, "start"))
    return parts, y + 16


def _is(point: Point, study: str, special: bool) -> bool:
    return point.study == study and point.special == special
