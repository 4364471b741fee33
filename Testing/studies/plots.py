"""Small plots as SVG: text that a repository can hold and a browser draws sharply."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from DistillSegLib.figures import BLUE, GREY, ORANGE

FONT = 'font-family="sans-serif" fill="#333"'
LETTER = 6.6  # pixels of a letter, about, at the ordinary size of 12
WIDTH, ROW, TOP = 760, 34, 14
LONG = 34  # letters of a name that would leave too little room beside it


@dataclass(frozen=True)
class Series:
    """A name and its values, one for each run."""

    name: str
    values: Sequence[float]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two values, about `count` of them."""
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= count)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def dots(series: Sequence[Series], label: str, least: float = 0.0) -> str:
    """A row for each series: a dot for each value, a bar at their mean.

    The axis spans no less than `least`, lest a difference of no account look large. Names
    stand at the left, or, where one is long, each above its row.
    """
    values = [value for each in series for value in each.values]
    low, high = around(values, least)
    above = max(len(each.name) for each in series) > LONG
    height = ROW + 12 if above else ROW
    bottom = TOP + height * len(series)
    left = 20 if above else 20 + LETTER * max(len(each.name) for each in series)

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - 20)

    parts = []
    for tick in ticks(low, high):
        parts.append(line(x(tick), TOP, x(tick), bottom, GREY, 0.5))
        parts.append(words(x(tick), bottom + 16, f"{tick:g}", "middle"))
    for row, each in enumerate(series):
        y = TOP + height * (row + 1) - ROW / 2
        if above:
            parts.append(words(left, y - 14, each.name, "start", halo=True))
        else:
            parts.append(words(left - 10, y + 4, each.name, "end"))
        mean = statistics.fmean(each.values)
        parts.append(line(x(mean), y - 10, x(mean), y + 10, ORANGE, 3))
        parts += [dot(x(value), y) for value in each.values]
    parts.append(words((left + WIDTH) / 2, bottom + 34, label, "middle"))
    return page(bottom + 44, parts)


def around(values: Sequence[float], least: float = 0.0) -> tuple[float, float]:
    """A little more than the values take, no less than `least`; some width where they are one."""
    spread = max(values) - min(values)
    margin = max(0.12 * spread, (least - spread) / 2) or 0.01
    return min(values) - margin, max(values) + margin


def shares(values: Sequence[float]) -> list[str]:
    """Numbers below one with as many decimals as the finest needs: .85, .90."""
    digits = max(len(f"{value:.6g}".partition(".")[2]) for value in values)
    return [f"{value:.{digits}f}".removeprefix("0") or "0" for value in values]


def line(
    x1: float, y1: float, x2: float, y2: float, color: str, width: float, dashes: str = ""
) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    style = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<line {place} stroke="{color}" stroke-width="{width}"{style}/>'


def dot(
    x: float, y: float, color: str = BLUE, radius: float = 5, hollow: bool = False, name: str = ""
) -> str:
    """A filled or a hollow circle; its name shows when a pointer rests on it."""
    fill = f'fill="white" stroke="{color}" stroke-width="1.5"' if hollow else f'fill="{color}"'
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"'
    title = f"<title>{escape(name)}</title>" if name else ""
    return f'<circle {place} {fill} fill-opacity="0.75">{title}</circle>'


def words(
    x: float,
    y: float,
    text: str,
    anchor: str,
    size: float = 12,
    *,
    bold: bool = False,
    halo: bool = False,
) -> str:
    """A line of text; `anchor` is what of it lies at x: start, middle or end."""
    style = f'font-size="{size:g}" {FONT}' + (' font-weight="bold"' if bold else "")
    if halo:  # so that a line behind does not cut it
        style += ' stroke="white" stroke-width="4" stroke-linejoin="round" paint-order="stroke"'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {style}>{escape(text)}</text>'


def page(height: float, parts: Sequence[str], extra: str = "") -> str:
    """The whole file; `extra` are further attributes of its outermost element."""
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"{extra}'
    back = f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', back, *parts, "</svg>\n"])
