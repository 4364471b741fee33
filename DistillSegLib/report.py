"""The report: one HTML file with tables and pictures that anyone can open, send or print.

Nothing is loaded from elsewhere and nothing runs in it: styles are inline, grey values are PNG
within the file, outlines are SVG paths, sharp at any size. Every text from outside is escaped: the
names of files and structures are whatever somebody typed.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DistillSegLib import __version__
from DistillSegLib.comparison import Comparison, Row
from DistillSegLib.figures import (
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    Scene,
    chosen_slices,
    escaped,
    figure,
    scene_of,
)
from DistillSegLib.files import write_text
from DistillSegLib.geometry import describe_grid
from DistillSegLib.segmentations import Segmentation, volumes_by_value_ml

RESEARCH_USE = "For research use. Not a medical device: not for diagnosis or treatment."


def write_report(
    path: Path | str,
    image: sitk.Image | None,
    a: Segmentation,
    b: Segmentation | None = None,
    comparison: Comparison | None = None,
    *,
    title: str,
    facts: Mapping[str, object] | None = None,
) -> Path:
    """Write a report on one segmentation, or on two that were compared.

    Args:
        image: what was segmented; without it the pictures have a dark ground.
        b: the second segmentation, with its `comparison` to `a`; or neither.
        facts: what else the table of facts shows, by name, such as input, seconds, peak memory;
            a name that the report uses itself replaces its entry.

    The file holds no date, so that equal inputs give equal bytes.
    """
    if (b is None) != (comparison is None):
        raise ValueError("A report on two segmentations needs both `b` and `comparison`.")
    scene = scene_of(image, a, comparison)
    names = [_short(a, "first")] + ([_short(b, "second")] if b else [])
    notes = [*a.warnings, *(b.warnings if b else ()), *(comparison.notes if comparison else ())]
    parts = [
        f"<header><h1>{escaped(title)}</h1>{_summary(comparison, names)}</header>",
        "".join(f'<p class="note">{escaped(note)}</p>' for note in notes),
        _comparison_table(comparison, scene) if comparison else _volume_table(a, scene),
        _pictures(scene, names),
        _facts_table(a, b, comparison, facts or {}),
        _explanations(comparison),
        f"<footer><p>{RESEARCH_USE} Made by DistillSeg {__version__}.</p></footer>",
    ]
    return write_text(path, _page(title, "\n".join(parts)))


def _page(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escaped(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _summary(comparison: Comparison | None, names: Sequence[str]) -> str:
    if comparison is None:
        return f'<p class="lead">A is {escaped(names[0])}.</p>'
    told = f"A is {names[0]}, B is {names[1]}."
    measured = [row for row in comparison.rows if not math.isnan(row.dice)]
    if measured:
        low, high = (_number(f(row.dice for row in measured), 3) for f in (min, max))
        worst = max(measured, key=lambda row: row.hd95_mm)
        told += f" Dice {low}" + (f" to {high}" if low != high else "")
        told += f" over {len(measured)} structure{'s' * (len(measured) > 1)}; "
        told += f"largest HD95 {_number(worst.hd95_mm, 2)} mm ({worst.structure})."
    else:
        told += " No structure is in both."
    return f'<p class="lead">{escaped(told)}</p>'


def _comparison_table(comparison: Comparison, scene: Scene) -> str:
    heads = (
        "Dice",
        "HD95<br>mm",
        f"Surface Dice<br>at {comparison.tolerance_mm:g} mm",
        "Volume A<br>ml",
        "Volume B<br>ml",
        "A − B<br>% of B",
        "Worst axial slice<br>index (mm²)",
    )
    rows = "".join(_comparison_row(s.row, s.color) for s in scene.structures)
    return _table("Structures", ("Structure", *heads), rows)


def _comparison_row(row: Row, color: str) -> str:
    matched = f"by {row.matched_by}" if row.a and row.b else ""
    remark = ", ".join(text for text in (matched, row.remark) if text)
    worst = "–"
    if row.worst_slice is not None:
        worst = f"{row.worst_slice} ({_number(row.worst_slice_mm2, 0)})"
    cells = (
        _number(row.dice, 3) + _bar(row.dice),
        _number(row.hd95_mm, 2),
        _number(row.nsd, 3) + _bar(row.nsd),
        _number(row.volume_a_ml, 3),
        _number(row.volume_b_ml, 3),
        _number(row.difference_percent, 1, sign=True),
        worst,
    )
    head = (
        f'{_swatch(color)}{escaped(row.structure)}<br><span class="small">{escaped(remark)}</span>'
    )
    return f'<tr><th scope="row">{head}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _volume_table(a: Segmentation, scene: Scene) -> str:
    volumes = volumes_by_value_ml(a.image)
    rows = ""
    for structure, label in zip(scene.structures, a.labels):
        volume = _number(volumes[label.value], 3) if label.value in volumes else "not found"
        name = f"{_swatch(structure.color)}{escaped(structure.name)}"
        rows += f'<tr><th scope="row">{name}</th><td>{volume}</td></tr>'
    return _table("Structures", ("Structure", "Volume<br>ml"), rows, style="numbers narrow")


def _pictures(scene: Scene, names: Sequence[str]) -> str:
    figures = [
        figure(scene, names, plane, index, why, f"s{number}")
        for number, (plane, index, why) in enumerate(chosen_slices(scene))
    ]
    low, high = (float(np.format_float_positional(v, 4, fractional=False)) for v in scene.window)
    grey = f"Grey values from {low:g} to {high:g}. " if scene.image is not None else ""
    return (
        f'<section><h2>Slices</h2>{_legend(scene)}{"".join(figures)}<p class="small">{grey}'
        "R right, L left, A anterior, P posterior, S superior, I inferior of the patient; "
        "slice indices count from 0 as stored in the file. Outlines run between voxel centres, "
        "which is the surface that the surface Dice measures.</p></section>"
    )


def _legend(scene: Scene) -> str:
    lists = [("Structures", [(s.color, s.name) for s in scene.structures])]
    if scene.b is not None:
        colors = [(GREY, "agree"), (BLUE, "only A"), (ORANGE, "only B")]
        lists += [("Difference", [*colors, (PURPLE, "both, but another structure")])]
    return "".join(
        f'<ul class="legend"><li class="small">{title}:</li>'
        + "".join(f"<li>{_swatch(color)}{escaped(name)}</li>" for color, name in items)
        + "</ul>"
        for title, items in lists
    )


def _swatch(color: str) -> str:
    """A small square of a colour."""
    return f'<span class="swatch" style="background:{color}"></span>'


def _facts_table(
    a: Segmentation,
    b: Segmentation | None,
    comparison: Comparison | None,
    facts: Mapping[str, object],
) -> str:
    known: dict[str, object] = {"Grid": describe_grid(a.image)}
    for letter, segmentation in (("A", a), ("B", b)):
        if segmentation is not None:
            known[f"Segmentation {letter}"] = segmentation.source or "not told"
            if segmentation.seconds:
                known[f"Seconds {letter}"] = _times(segmentation.seconds)
    known["Software"] = (
        f"DistillSeg {__version__}, Python {platform.python_version()}, NumPy {np.__version__}, "
        f"SimpleITK {sitk.Version.VersionString()}"
    )
    known = {**facts, **{name: value for name, value in known.items() if name not in facts}}
    rows = "".join(
        f'<tr><th scope="row">{escaped(name)}</th><td>{escaped(value)}</td></tr>'
        for name, value in known.items()
    )
    return _table("Facts", (), rows, style="facts")


def _times(seconds: Mapping[str, float]) -> str:
    stages = ", ".join(f"{stage} {value:.2f}" for stage, value in seconds.items())
    return stages if len(seconds) == 1 else f"{sum(seconds.values()):.2f} ({stages})"


def _explanations(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    return (
        '<section class="small"><h2>What the numbers mean</h2><dl>'
        "<dt>by …</dt><dd>What the structures of A and B were matched by.</dd>"
        "<dt>Dice</dt><dd>Twice the shared volume over the sum of both; 1 is equal.</dd>"
        "<dt>HD95</dt><dd>From the surface of one to that of the other, 95% of the distances are "
        "at most this, in both directions. ∞: only one of both holds the structure.</dd>"
        "<dt>Surface Dice</dt><dd>The share of both surfaces that lies within "
        f"{comparison.tolerance_mm:g} mm of the other; 1 is equal to this tolerance.</dd>"
        "<dt>Worst axial slice</dt><dd>The one with the largest area that only one of both holds."
        "</dd><dt>–</dt><dd>Nothing to measure; the reason stands beside the structure's name.</dd>"
        "</dl></section>"
    )


def _table(title: str, heads: Sequence[str], rows: str, *, style: str = "numbers") -> str:
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    head = f"<thead><tr>{head}</tr></thead>" if heads else ""
    return (
        f'<section><h2>{title}</h2><div class="wide"><table class="{style}">{head}'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _number(value: float, digits: int, *, sign: bool = False) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def _bar(share: float) -> str:
    """A bar as long as the share of 1, beneath its number."""
    return "" if math.isnan(share) else f'<i class="bar" style="width:{100 * share:.1f}%"></i>'


def _short(segmentation: Segmentation, otherwise: str) -> str:
    """The last part of where a segmentation comes from."""
    return segmentation.source.replace("\\", "/").rstrip("/").rpartition("/")[2] or otherwise


_STYLE = """
:root { --ink: #1c1f23; --quiet: #5c6570; --paper: #fff; --line: #d9dee4; --soft: #f4f6f8;
  --note: #fff6e0; --bar: #7d8a97; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --quiet: #a3adb8; --paper: #15181c;
  --line: #343a42; --soft: #1e2329; --note: #3a3016; --bar: #8b98a5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
.lead { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
.small { font-size: .84rem; font-weight: normal; color: var(--quiet); }
.note { background: var(--note); border-left: 4px solid #E69F00; padding: .5rem .8rem;
  margin: 1rem 0 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .45rem .8rem .45rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
thead th { font-size: .84rem; font-weight: 600; color: var(--quiet); vertical-align: bottom; }
.numbers td, .numbers thead th + th { text-align: right; padding: .45rem 0 .45rem 1rem;
  white-space: nowrap; }
.numbers tbody th { min-width: 9rem; }
.narrow { width: auto; }
.facts th { width: 14rem; font-weight: 600; }
i.bar { display: block; height: 3px; margin: .2rem 0 0 auto; background: var(--bar);
  border-radius: 2px; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .5em; border-radius: 2px;
  vertical-align: -.05em; border: 1px solid rgba(128, 128, 128, .6); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.3rem; margin: 0 0 .3rem; padding: 0;
  list-style: none; font-size: .9rem; }
figure { margin: .8rem 0 1.2rem; padding: .8rem; background: var(--soft); border-radius: 8px;
  break-inside: avoid; }
figcaption { margin-bottom: .5rem; overflow-wrap: anywhere; line-height: 1.4; }
.panels { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .7rem; }
.panels:not(:has(.panel:nth-child(4))) { grid-template-columns: repeat(3, minmax(0, 1fr)); }
@media (max-width: 760px) {
  .panels { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
}
.panel p { margin: 0 0 .25rem; font-size: .84rem; font-weight: 600; white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis; }
.panel svg { display: block; width: 100%; max-height: 420px; background: #000; border-radius: 4px; }
.definitions { position: absolute; width: 0; height: 0; }
svg path { fill-rule: evenodd; clip-rule: evenodd; }
svg .filled { fill-opacity: .4; stroke-width: .08em; stroke-linejoin: round; }
svg .line { fill: none; stroke-width: .13em; stroke-linejoin: round; }
svg .under { stroke: #000; stroke-opacity: .5; stroke-width: .24em; }
svg .dashed { stroke-dasharray: .35em .3em; }
svg .difference { opacity: .7; shape-rendering: crispEdges; }
svg text { fill: #fff; stroke: #000; stroke-width: .16em; paint-order: stroke; font-weight: 600;
  text-anchor: middle; dominant-baseline: central; }
svg .bar { stroke: #fff; stroke-width: .18em; fill: none; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; }
footer { margin-top: 2rem; border-top: 1px solid var(--line); font-size: .9rem;
  color: var(--quiet); }
@media print { body { font-size: 10pt; } main { max-width: none; padding: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .panel svg { max-height: 6cm; } figure { padding: .4rem; } h2 { break-after: avoid; } }
""".strip()
