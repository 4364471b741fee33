"""`distillseg benchmark`: speed and memory on this computer, beside other pipelines."""

from __future__ import annotations

import argparse
from pathlib import Path

from DistillSegLib.commands import add_command
from DistillSegLib.errors import DistillSegError

EXAMPLES = """
distillseg benchmark
distillseg benchmark scan.nii.gz --package hippocampus-fast --json scan.json
distillseg benchmark --against nnunet,monai,torch --threads 2 --markdown speed.md
distillseg benchmark --scale --engine onnxruntime
"""
PEERS = ("nnunet", "monai", "torch")
ENGINES = ("onnxruntime", "openvino")


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "benchmark",
        help="measure speed and memory on this computer",
        description="Without an IMAGE or --package: the bundled models on the bundled sample, and "
        "two untrained networks on a CT-like volume of 512x512x200 voxels that is made by code "
        "(these need the extra [train]). Every measurement is a process of its own.",
        examples=EXAMPLES,
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files to segment")
    parser.add_argument(
        "--package",
        action="append",
        default=[],
        metavar="ID_OR_FILE",
        help="a model to measure; may be repeated (default: the bundled ones)",
    )
    parser.add_argument(
        "--against",
        type=lambda words: _list(words, PEERS),
        default=(),
        metavar="NAMES",
        help="also run these on the CT-like volume with the same weights: nnunet, monai, torch; "
        "with nnunet also its default network",
    )
    parser.add_argument(
        "--engine",
        type=lambda words: _list(words, ENGINES),
        default=(),
        metavar="NAMES",
        help="onnxruntime, openvino or both (default: those installed)",
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="for every pipeline (default: all)"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="N", help="medians are told of N (default: 5)"
    )
    parser.add_argument(
        "--scale", action="store_true", help="measure growth from 128x128x128 to 512x512x800 voxels"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a small volume, to try the command out"
    )
    parser.add_argument("--markdown", metavar="FILE", help="write the tables as Markdown")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure, show and save."""
    from DistillSegLib.benchmark.hardware import hardware_line
    from DistillSegLib.benchmark.report import markdown, tables
    from DistillSegLib.benchmark.study import run_study
    from DistillSegLib.benchmark.summary import ratios
    from DistillSegLib.commands.console import Terminal
    from DistillSegLib.files import write_text

    request = _request(options)
    terminal = Terminal(options.json)
    with terminal.progress("Measuring") as on_progress:
        result = run_study(request, on_progress=on_progress, remark=terminal.remark)
    terminal.print(hardware_line(result["hardware"], result["threads"]))
    for table in tables(result):
        terminal.table(table.columns, table.rows, table.title)
        for note in table.notes:
            terminal.print(note)
        terminal.print()
    for subject in result["subjects"]:
        subject["ratios"] = ratios(subject["rows"])
    terminal.write_json(result)
    if options.markdown:
        write_text(options.markdown, markdown(result))


def _request(options: argparse.Namespace):
    """What the options ask for, refused at the door if it cannot be."""
    from DistillSegLib.benchmark.study import Request
    from DistillSegLib.machine import physical_cores
    from DistillSegLib.package import load_package
    from DistillSegLib.runtime import available_engines

    for name in ("threads", "repeats"):
        least = 1 if name == "repeats" else 0
        if getattr(options, name) < least:
            raise DistillSegError(f"--{name} is {getattr(options, name)}; use {least} or more.")
    for image in options.images:
        if not Path(image).exists():
            raise DistillSegError(f"There is no file or folder '{image}'; check the path.")
    for package in options.package:
        load_package(package)
    installed = available_engines()
    for engine in options.engine:
        if engine not in installed:
            raise DistillSegError(f"'{engine}' is not installed; run: pip install {engine}")
    return Request(
        images=tuple(options.images),
        packages=tuple(options.package),
        engines=options.engine or installed,
        against=options.against,
        threads=options.threads or physical_cores() or 1,
        repeats=options.repeats,
        quick=options.quick,
        scale=options.scale,
    )


def _list(words: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Names between commas, each one known, in the order given."""
    names = tuple(dict.fromkeys(name.strip() for name in words.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(known)}")
    if not names:
        raise argparse.ArgumentTypeError(f"give some of {', '.join(known)}")
    return names
