"""Small plots as SVG: text that a repository can hold and a browser draws sharply."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#B8B8B8"
FONT = 'font-family="sans-serif" font-size="12" fill="#333"'
LETTER = 6.6  # pixels, about
WIDTH, ROW, TOP = 760, 34, 14


@dataclass(frozen=True)
class Series:
    """A name and its values, one for each run."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Point:
    """A model: what it costs and how good it is."""

    name: str
    x: float
    y: float


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two values, about `count` of them."""
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= count)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def dots(series: Sequence[Series], label: str) -> str:
    """A row for each series: a dot for each value, a bar at their mean."""
    values = [value for each in series for value in each.values]
    low, high = _range(values)
    bottom = TOP + ROW * len(series)
    left = 20 + LETTER * max(len(each.name) for each in series)

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - 20)

    parts = []
    for tick in ticks(low, high):
        parts.append(_line(x(tick), TOP, x(tick), bottom, GREY, 0.5))
        parts.append(_text(x(tick), bottom + 16, f"{tick:g}", "middle"))
    for row, each in enumerate(series):
        y = TOP + ROW * (row + 0.5)
        parts.append(_text(left - 10, y + 4, each.name, "end"))
        mean = statistics.fmean(each.values)
        parts.append(_line(x(mean), y - 10, x(mean), y + 10, ORANGE, 3))
        parts += [_dot(x(value), y) for value in each.values]
    parts.append(_text((left + WIDTH) / 2, bottom + 34, label, "middle"))
    return _page(bottom + 44, parts)


def scatter(points: Sequence[Point], x_label: str, y_label: str) -> str:
    """Points over a logarithmic axis, with names."""
    left, top, bottom, height = 60, 34, 330, 380
    lows, highs = zip(*(_range([math.log10(p.x) for p in points]), _range([p.y for p in points])))

    def x(value: float) -> float:
        share = (math.log10(value) - lows[0]) / (highs[0] - lows[0])
        return left + share * (WIDTH - left - 170)

    def y(value: float) -> float:
        return bottom - (value - lows[1]) / (highs[1] - lows[1]) * (bottom - top)

    parts = []
    for tick in ticks(lows[1], highs[1]):
        parts.append(_line(left, y(tick), WIDTH - 170, y(tick), GREY, 0.5))
        parts.append(_text(left - 8, y(tick) + 4, f"{tick:g}", "end"))
    powers = range(math.floor(lows[0]), math.ceil(highs[0]) + 1)
    for tick in (m * 10.0**p for p in powers for m in (1, 2, 5)):
        if lows[0] <= math.log10(tick) <= highs[0]:
            parts.append(_line(x(tick), top, x(tick), bottom, GREY, 0.5))
            parts.append(_text(x(tick), bottom + 16, f"{tick:,.10g}", "middle"))
    for point in points:
        parts.append(_dot(x(point.x), y(point.y)))
        parts.append(_text(x(point.x) + 9, y(point.y) + 4, point.name, "start"))
    parts.append(_text((left + WIDTH - 170) / 2, bottom + 36, x_label, "middle"))
    parts.append(_text(left - 50, 18, y_label, "start"))
    return _page(height, parts)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """A little more than the values take; some width where they are one."""
    margin = 0.12 * (max(values) - min(values)) or 0.01
    return min(values) - margin, max(values) + margin


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{color}" stroke-width="{width}"/>'


def _dot(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{BLUE}" fill-opacity="0.75"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {FONT}>{escape(text)}</text>'


def _page(height: float, parts: Sequence[str]) -> str:
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    back = f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', back, *parts, "</svg>\n"])
