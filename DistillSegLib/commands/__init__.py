"""The commands of `distillseg`, one file each: `add` declares the options, `run` does the work.

`add` must stay cheap, since `--help` declares every command: libraries are imported inside `run`.
This folder is the only place of `rich` and `print`.
"""

from __future__ import annotations

import argparse
import math
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from DistillSegLib.errors import DistillSegError


def harmless(text: str) -> str:
    """Text without the control characters by which a file's words could command a terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)


def add_command(
    commands: argparse._SubParsersAction,
    name: str,
    *,
    help: str,
    examples: str,
    description: str = "",
) -> argparse.ArgumentParser:
    """A command's parser with what all commands share: examples, `--json` and `--debug`."""
    parser = commands.add_parser(
        name,
        help=help,
        description=textwrap.fill(f"{help[0].upper()}{help[1:]}. {description}", 80),
        epilog="examples:\n"
        + "\n".join(f"  {line.strip()}" for line in examples.strip().split("\n")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the result for machines; '-' is standard output"
    )
    parser.add_argument(
        "--debug", action="store_true", help="on an error, show where in the code it arose"
    )
    return parser


def add_engine(parser: argparse.ArgumentParser) -> None:
    """The options that say how a network runs."""
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="cores to use (default: all)"
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "onnxruntime", "openvino"),
        default="auto",
        help="what runs the network (default: auto)",
    )


def add_tolerance(parser: argparse.ArgumentParser) -> None:
    """The option that says which distance between surfaces does not matter."""
    parser.add_argument(
        "--tolerance-mm",
        type=_distance_mm,
        default=1.0,
        metavar="MM",
        help="distance that the surface Dice allows (default: 1)",
    )


def _distance_mm(word: str) -> float:
    try:
        distance_mm = float(word)
    except ValueError:
        distance_mm = math.nan
    if not (math.isfinite(distance_mm) and distance_mm >= 0):
        raise argparse.ArgumentTypeError(f"'{word}' is not 0 or more mm")
    return distance_mm


@contextmanager
def needs_training() -> Iterator[None]:
    """Around imports of what trains: where it is not installed, one sentence says how to."""
    try:
        yield
    except ModuleNotFoundError as problem:
        if (problem.name or "").startswith("DistillSegLib"):
            raise
        raise DistillSegError(
            f"This command needs '{problem.name}', which is not installed; run: "
            "pip install 'distillseg[train]'"
        ) from problem
