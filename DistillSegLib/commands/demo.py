"""`distillseg demo`: the bundled sample, segmented by the fast model and by its reference.

Each model runs in a process of its own, so that its peak memory is its own: all that a program
needs that segments one image, Python, SimpleITK and the engine included.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DistillSegLib.commands import add_command, add_engine
from DistillSegLib.commands.compare import show_comparison
from DistillSegLib.errors import DistillSegError, ImageError
from DistillSegLib.files import write_text

if TYPE_CHECKING:
    from DistillSegLib.comparison import Comparison

EXAMPLES = """
distillseg demo
distillseg demo --out my-first-segmentation --json -
"""
FAST, REFERENCE = "hippocampus-fast", "hippocampus-reference"
SAMPLE = Path("Samples", "hippocampus-mean.nii.gz")
MODULE = "DistillSegLib.commands.demo"  # this file
REPEATS = 5  # of which the median time is told


@dataclass(frozen=True)
class Measured:
    """One model on the sample.

    Attributes:
        load_seconds: to open the package and start the engine.
        seconds: from image in memory to label map, the median of `REPEATS`.
        cpu_seconds: the same summed over all cores; network_seconds: of it, the network.
        peak_memory_mb: of the whole process.
    """

    package: str
    version: str
    engine: str
    parameters: int
    load_seconds: float
    seconds: float
    cpu_seconds: float
    network_seconds: float
    peak_memory_mb: float
    warnings: tuple[str, ...]


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "demo",
        help="segment the bundled sample with the fast and the reference model",
        description="Leaves both segmentations (.seg.nrrd for 3D Slicer, .nii.gz), a table "
        "(.csv, .json) and a report with pictures (.html).",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--out", default="distillseg-demo", metavar="DIR", help="default: distillseg-demo"
    )
    add_engine(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Segment with both models, compare, report."""
    from DistillSegLib.commands.console import Terminal
    from DistillSegLib.comparison import compare
    from DistillSegLib.images import read_image
    from DistillSegLib.places import resources
    from DistillSegLib.report import write_report
    from DistillSegLib.segmentations import read_segmentation

    sample, out = resources() / SAMPLE, Path(options.out)
    if not sample.is_file():
        raise ImageError(f"The sample '{sample}' is missing; install DistillSeg again.")
    terminal = Terminal(options.json)
    measured = []
    for name in (FAST, REFERENCE):
        with terminal.progress(f"Segmenting with {name}") as on_progress:
            measured.append(_in_own_process(name, sample, out, options, on_progress))
    fast, reference = (
        replace(
            read_segmentation(out / f"{model.package}.seg.nrrd"),
            source=model.package,
            warnings=model.warnings,
        )
        for model in measured
    )
    with terminal.progress("Comparing and writing the report"):
        comparison = compare(fast, reference)
        facts = _facts(measured)
        write_report(
            out / "report.html",
            read_image(sample),
            fast,
            reference,
            comparison,
            title=f"{FAST} against {REFERENCE}",
            facts={key: f"{a} (fast), {b} (reference)" for key, (a, b) in facts.items()},
        )
        table = _write_tables(out, comparison, measured)
    show_comparison(comparison, terminal, "fast", "reference", title="Structures")
    columns = ["", FAST, REFERENCE]
    terminal.table(columns, [[key, *values] for key, values in facts.items()], title="Models")
    for warning in dict.fromkeys(text for model in measured for text in model.warnings):
        terminal.print(f"Warning: {warning}")
    terminal.print(f"Report:        {out / 'report.html'}")
    terminal.print(
        f"Segmentations: {out / FAST}.seg.nrrd, {out / REFERENCE}.seg.nrrd (and .nii.gz)"
    )
    terminal.print(f"Table:         {out / 'table.csv'}, {out / 'table.json'}")
    terminal.write_json(table | {"folder": out})


def _facts(measured: list[Measured]) -> dict[str, list[str]]:
    """What the two models cost, as rows for people."""
    return {
        "version": [model.version for model in measured],
        "parameters": [f"{model.parameters:,}" for model in measured],
        "engine": [model.engine for model in measured],
        "seconds per image": [f"{model.seconds:.3f}" for model in measured],
        "processor seconds per image": [f"{model.cpu_seconds:.3f}" for model in measured],
        "seconds in the network": [f"{model.network_seconds:.3f}" for model in measured],
        "seconds to load": [f"{model.load_seconds:.3f}" for model in measured],
        "peak memory (MB, whole process)": [f"{model.peak_memory_mb:.0f}" for model in measured],
    }


def _write_tables(out: Path, comparison: Comparison, measured: list[Measured]) -> dict[str, Any]:
    table = comparison.to_dict() | {"models": [asdict(model) for model in measured]}
    text = io.StringIO()
    sides = ("fast", "reference")
    columns = ["structure", *(f"{side}_ml" for side in sides), "dice", "hd95_mm", "surface_dice"]
    columns += [f"{side}_{what}" for what in ("seconds", "peak_memory_mb") for side in sides]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    costs = [model.seconds for model in measured] + [model.peak_memory_mb for model in measured]
    for row in comparison.rows:
        agreement = (row.volume_a_ml, row.volume_b_ml, row.dice, row.hd95_mm, row.nsd)
        writer.writerow([row.structure, *(f"{value:.6g}" for value in (*agreement, *costs))])
    write_text(out / "table.csv", text.getvalue())
    write_text(out / "table.json", json.dumps(table, indent=1) + "\n")
    return table


def _in_own_process(
    package: str,
    sample: Path,
    out: Path,
    options: argparse.Namespace,
    on_progress: Callable[[float], None],
) -> Measured:
    command = [sys.executable, "-m", MODULE, package, sample, out, options.threads, options.engine]
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [str(word) for word in command],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    last, answer = "", {}
    try:
        for line in process.stdout:
            if line.startswith("{"):
                answer = json.loads(line)
                on_progress(answer.get("progress", 1.0))
            last = line.strip() or last
        process.wait()
    finally:
        process.kill()  # no effect on one that has ended
        process.stdout.close()
        process.wait()
    if "measured" in answer:
        return Measured(**answer["measured"])
    reason = answer.get("error") or f"'{package}' ended with code {process.returncode}: {last}"
    raise DistillSegError(reason)


def _measure(package: str, sample: str, out: str, threads: str, engine: str) -> Measured:
    """Segment the sample in this process, write both files, then repeat for the time."""
    from DistillSegLib.images import read_image
    from DistillSegLib.inference import Segmenter
    from DistillSegLib.machine import peak_memory_bytes
    from DistillSegLib.segmentations import write_segmentation

    start = time.perf_counter()
    segmenter = Segmenter(package, threads=int(threads), engine=engine)
    load_seconds = time.perf_counter() - start
    image = read_image(sample)
    segmentation = segmenter.segment(image)
    for ending in (".seg.nrrd", ".nii.gz"):
        write_segmentation(segmentation, Path(out, package + ending))
    runs = []
    for number in range(REPEATS):
        _tell(progress=(number + 1) / (REPEATS + 1))
        start, cpu_start = time.perf_counter(), time.process_time()
        again = segmenter.segment(image)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        runs.append((seconds, cpu_seconds, again.seconds["network"]))
    seconds, cpu_seconds, network_seconds = (statistics.median(column) for column in zip(*runs))
    return Measured(
        package,
        segmenter.package.manifest.version,
        segmenter.engine,
        segmenter.variant.parameters,
        load_seconds=round(load_seconds, 4),
        seconds=round(seconds, 4),
        cpu_seconds=round(cpu_seconds, 4),
        network_seconds=round(network_seconds, 4),
        peak_memory_mb=round(peak_memory_bytes() / 1e6, 1),
        warnings=segmentation.warnings,
    )


def _tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def _child(arguments: list[str]) -> int:
    """This file run as a process: measure, and tell the parent in lines of JSON."""
    try:
        _tell(measured=asdict(_measure(*arguments)))
        return 0
    except KeyboardInterrupt:
        return 130
    except DistillSegError as problem:
        _tell(error=str(problem))
        return 1


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1:]))
