"""`distillseg compare`: how well two segmentations agree, structure by structure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from DistillSegLib.commands import add_command, add_tolerance

if TYPE_CHECKING:
    from DistillSegLib.commands.console import Terminal
    from DistillSegLib.comparison import Comparison

EXAMPLES = """
distillseg compare fast.seg.nrrd reference.seg.nrrd
distillseg compare result.nii.gz truth.nii.gz --csv table.csv --tolerance-mm 2
distillseg compare a.seg.nrrd b.seg.nrrd --image scan.nii.gz --html report.html
"""


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "compare",
        help="compare two segmentations of one image",
        description="Dice, HD95, surface Dice and volumes of each structure.",
        examples=EXAMPLES,
    )
    parser.add_argument("a", metavar="A", help=".seg.nrrd or label map")
    parser.add_argument("b", metavar="B", help="another of the same image")
    parser.add_argument("--csv", metavar="FILE", help="write the table")
    parser.add_argument("--html", metavar="FILE", help="write a report with pictures")
    parser.add_argument("--image", metavar="FILE", help="what both show, for the report's pictures")
    add_tolerance(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Compare, print the table and write what was asked for."""
    from DistillSegLib.commands.console import Terminal
    from DistillSegLib.comparison import compare
    from DistillSegLib.images import read_image
    from DistillSegLib.segmentations import read_segmentation

    terminal = Terminal(options.json)
    a, b = read_segmentation(options.a), read_segmentation(options.b)
    image = read_image(options.image) if options.image else None
    with terminal.progress("Comparing"):
        comparison = compare(a, b, tolerance_mm=options.tolerance_mm)
    show_comparison(comparison, terminal)
    if options.csv:
        comparison.to_csv(options.csv)
    if options.html:
        from DistillSegLib.report import write_report

        title = f"{Path(options.a).name} against {Path(options.b).name}"
        write_report(options.html, image, a, b, comparison, title=title)
    terminal.write_json(comparison.to_dict())


def show_comparison(
    comparison: Comparison, terminal: Terminal, a: str = "A", b: str = "B", title: str = "Agreement"
) -> None:
    """Print the structures with their agreement; `a` and `b` name the two."""
    columns = ["structure", f"{a} (ml)", f"{b} (ml)", "Dice", "HD95 (mm)", "surface Dice"]
    rows = [
        [r.structure, r.volume_a_ml, r.volume_b_ml, r.dice, r.hd95_mm, r.nsd]
        for r in comparison.rows
    ]
    terminal.table(columns, rows, title=f"{title} (surface Dice at {comparison.tolerance_mm:g} mm)")
    remarks = [f"{row.structure}: {row.remark}." for row in comparison.rows if row.remark]
    for note in (*remarks, *comparison.notes):
        terminal.print(f"Note: {note}")
