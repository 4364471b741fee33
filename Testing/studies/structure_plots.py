"""Draw the Dice of every held-out case, for each structure and model of an organ.

    python Testing/studies/structure_plots.py

writes `Resources/Studies/<organ>-structures.svg` from the scores kept in `cards/*.json` alone.
Equal cases are stacked, so that none hides another; the bar runs from quartile to quartile, the
line in it is the median, and the worst case's value stands beside it.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from plots import BLUE, GREY, ORANGE, WIDTH, dot, line, page, shares, ticks, words

from DistillSegLib.files import write_text

CARDS = Path(__file__).resolve().parent / "cards"
OUT = Path(__file__).resolve().parents[2] / "Resources" / "Studies"
ORDER = ("reference", "fast", "tiny")  # then the others, by name
RADIUS, ROW, TOP, LEFT, RIGHT = 2.4, 46, 58, 96, WIDTH - 24
PILE = ROW / 2 - 4  # pixels from the row's middle that dots may lie off it
WORST = 44  # pixels for the worst case's value, left of its dot
Scores = Mapping[str, Mapping[str, Sequence[float]]]  # structure -> model -> Dice of the cases


def read(cards: Path = CARDS) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Organ -> its scores. What is in neither mask has no Dice and is no dot."""
    organs: dict[str, dict] = {}
    for path in sorted(cards.glob("*.json"), key=lambda path: _rank(path.stem)):
        organ, _, model = path.stem.rpartition("-")
        for row in json.loads(path.read_text(encoding="utf-8"))["cases"]:
            structures = organs.setdefault(organ, {})
            found = structures.setdefault(row["structure"], {}).setdefault(model, [])
            if row["dice"] is not None:
                found.append(row["dice"])
    return organs


def _rank(stem: str) -> tuple[int, str]:
    model = stem.rpartition("-")[2]
    return (ORDER.index(model) if model in ORDER else len(ORDER)), stem


def picture(organ: str, scores: Scores) -> str:
    """A block for each structure, a row for each of its models, a dot for each case."""
    rows = [(name, model) for name, found in scores.items() for model in found]
    values = [value for name, model in rows for value in scores[name][model]]
    low, high = min(values), max(values)
    first, width = LEFT + WORST, RIGHT - LEFT - WORST - RADIUS

    def x(value: float) -> float:
        return first + (value - low) / ((high - low) or 1) * width

    title = f"{organ.replace('-', ' ').capitalize()}: Dice of every held-out case"
    parts = [words(16, 22, title, "start", 15, bold=True)]
    parts.append(words(16, 42, "bar: middle half; line: median; number: worst case", "start"))
    bottom = TOP + len(rows) * ROW + len(scores) * 22
    found = ticks(low, high, 8) if high > low else [low]
    for tick, text in zip(found, shares(found)):
        parts.append(line(x(tick), TOP, x(tick), bottom, GREY, 0.5))
        parts.append(words(x(tick), bottom + 17, text, "middle"))
    y = float(TOP)
    for name, found in scores.items():
        parts.append(words(16, y + 14, name, "start", bold=True))
        y += 22
        for model, dice in found.items():
            parts += _row(model, dice, x, y + ROW / 2)
            y += ROW
    parts.append(words((first + RIGHT) / 2, bottom + 38, "Dice", "middle"))
    return page(bottom + 50, parts)


def _row(model: str, dice: Sequence[float], x: Callable, y: float) -> list[str]:
    parts = [words(LEFT - 8, y + 4, model, "end")]
    if not dice:
        return parts
    color = ORANGE if model == "reference" else BLUE
    lower, middle, upper = quartiles(dice)
    box = f'x="{x(lower):.1f}" y="{y - 17:.1f}" width="{x(upper) - x(lower):.1f}" height="34"'
    parts.append(f'<rect {box} rx="3" fill="{color}" fill-opacity="0.18"/>')
    parts.append(line(x(middle), y - 17, x(middle), y + 17, "#333", 2))
    parts += [dot(px, y + up, color, RADIUS) for px, up in stacked([x(value) for value in dice])]
    worst = shares([round(min(dice), 3)])[0]
    return [*parts, words(x(min(dice)) - 7, y + 4, worst, "end", 11)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile, interpolated as numpy does."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    return tuple(statistics.quantiles(values, n=4, method="inclusive"))


def stacked(places: Sequence[float]) -> list[tuple[float, float]]:
    """(x, offset in y) of each dot: in the row's middle, or as near to it as no dot is hidden.

    A pile that is higher than its row is pressed together: its dots overlap, but each is seen.
    """
    done: list[tuple[float, float]] = []
    for place in sorted(places):
        near = [(px, up) for px, up in done if place - px < 2 * RADIUS]
        offsets = (sign * step * 0.6 for step in itertools.count() for sign in (1, -1))
        free = (
            up
            for up in offsets
            if all((place - px) ** 2 + (up - other) ** 2 >= 4 * RADIUS**2 for px, other in near)
        )
        done.append((place, next(free)))
    press = PILE / max(PILE, *(abs(up) for _, up in done))
    return [(place, up * press) for place, up in done]


if __name__ == "__main__":
    for organ, scores in read().items():
        write_text(OUT / f"{organ}-structures.svg", picture(organ, scores))
        print(organ)
