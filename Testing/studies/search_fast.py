"""Which networks of the fast family are fast: latency measured, beside parameters and operations.

    python Testing/studies/search_fast.py --out Resources/Studies/fast-search.json
    python Testing/studies/search_fast.py --read Resources/Studies/fast-search.json --most-ms 150

The first builds every candidate with random weights (latency does not depend on them), exports it
as a package would hold it, and runs all in turn, so that a machine whose speed drifts treats them
alike: CPU milliseconds of one thread in ONNX Runtime, medians. It writes the JSON and, beside this
file, fast-search.md. The second reads a result again and names what fits a budget. Accuracy is not
measured here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch.utils.flop_counter import FlopCounterMode

from DistillSegLib.benchmark.hardware import processor
from DistillSegLib.export.onnx import export_onnx
from DistillSegLib.files import write_text
from DistillSegLib.networks import NetworkConfig, build_network, count_parameters
from DistillSegLib.runtime import Session

TABLE = Path(__file__).with_name("fast-search.md")
MARKER = "<!-- made by search_fast.py -->\n"  # what stands above it was written by hand
SHAPES = ((128, 128, 128), (96, 160, 160))
CLASSES = 14  # as of an abdominal CT
STEMS, FIRST, GROWTH, LEVELS, CONVOLUTIONS = (1, 2, 4), (8, 16, 32, 64), (1, 2), (2, 3, 4), (1, 2)
GMAC = (0.4, 28.0)  # of the first shape; beyond, a network is no student
PARAMETERS = 2_000_000
MARKS = {"parameters": "P", "gmac": "M", "parameters of stem": "p", "gmac of stem": "m"}
ODD = ((2, (20, 40, 80), 1), (2, (24, 48, 96), 1), (2, (32, 32, 64), 1))  # and a recipe's


@dataclass(frozen=True)
class Candidate:
    """A network of the fast family, as a recipe would set it."""

    stem: int
    width: tuple[int, ...]
    convolutions: int

    @property
    def name(self) -> str:
        """Such as "stem 2, 32 64 128, 1 convolution"."""
        return f"stem {self.stem}, {' '.join(map(str, self.width))}, {self.convolutions} per block"

    def build(self) -> torch.nn.Module:
        settings = {"width": self.width, "stem": self.stem, "convolutions": self.convolutions}
        return build_network(NetworkConfig("fast_unet", settings), 1, CLASSES).eval()


@dataclass(frozen=True)
class Row:
    """A candidate and what was measured.

    Attributes:
        gmac: 10^9 multiply-adds for the first of `SHAPES`, up to the coarse logits.
        cpu_ms: for each of `SHAPES`.
        fronts: of what no quicker candidate has as much: "parameters", "gmac"; and with " of stem"
            where that holds among those of the same stem, whose logits are as fine, only.
    """

    stem: int
    width: tuple[int, ...]
    convolutions: int
    parameters: int
    gmac: float
    cpu_ms: tuple[float, ...]
    fronts: tuple[str, ...] = ()


def candidates() -> Iterator[Candidate]:
    """All within the bounds of operations and parameters, and some of odd widths."""
    space = product(STEMS, FIRST, GROWTH, LEVELS, CONVOLUTIONS)
    regular = [(s, tuple(f * g**i for i in range(n)), c) for s, f, g, n, c in space]
    for settings in (*regular, *ODD):
        candidate = Candidate(*settings)
        parameters, gmac = size(candidate)
        if GMAC[0] <= gmac <= GMAC[1] and parameters <= PARAMETERS:
            yield candidate


def size(candidate: Candidate) -> tuple[int, float]:
    """Parameters, and 10^9 multiply-adds for the first of `SHAPES`."""
    with torch.device("meta"):
        net = candidate.build()
        image = torch.empty(1, 1, *SHAPES[0])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.coarse(image)
    return count_parameters(net), counter.get_total_flops() / 2 / 1e9


def measure(chosen: list[Candidate], repeats: int, shapes=SHAPES) -> list[Row]:
    """Every candidate `repeats` times on every shape, all in turn."""
    with tempfile.TemporaryDirectory() as folder:
        sessions = [_session(candidate, Path(folder)) for candidate in chosen]
    times: list[list[float]] = []
    for shape in shapes:
        image = np.random.default_rng(0).standard_normal((1, 1, *shape)).astype(np.float32)
        turns = [[_cpu_ms(session, image) for session in sessions] for _ in range(repeats + 1)]
        times.append([statistics.median(each) for each in zip(*turns[1:])])  # the first warms up
    rows = []
    for candidate, cpu_ms in zip(chosen, zip(*times)):
        parameters, gmac = size(candidate)
        settings = (candidate.stem, candidate.width, candidate.convolutions)
        rows.append(Row(*settings, parameters, round(gmac, 2), tuple(round(t, 1) for t in cpu_ms)))
    return marked(rows)


def _session(candidate: Candidate, folder: Path) -> Session:
    net, path = candidate.build(), folder / "model.onnx"
    window = [2 * net.multiple] * 3
    export_onnx(net, window, path, coarse=net.stride > 1, multiple=net.multiple)
    return Session(path, threads=1, engine="onnxruntime")


def _cpu_ms(session: Session, image: np.ndarray) -> float:
    start = time.process_time()
    session(image)
    return 1000 * (time.process_time() - start)


def marked(rows: list[Row]) -> list[Row]:
    """With the fronts that each row lies on, quickest first."""
    rows = sorted(rows, key=lambda row: row.cpu_ms[0])
    result = []
    for row in rows:
        quicker = [other for other in rows if other.cpu_ms[0] < row.cpu_ms[0]]
        fronts = []
        for what in ("parameters", "gmac"):
            ahead = [each for each in quicker if getattr(each, what) >= getattr(row, what)]
            if not ahead:
                fronts.append(what)
            elif all(each.stem != row.stem for each in ahead):
                fronts.append(f"{what} of stem")
        result.append(replace(row, fronts=tuple(fronts)))
    return result


def within(rows: list[Row], most_ms: float, most_parameters: float, count: int = 5) -> list[Row]:
    """The largest that fit a budget, by operations: what a student learns with."""
    fitting = [
        row for row in rows if row.cpu_ms[0] <= most_ms and row.parameters <= most_parameters
    ]
    return sorted(fitting, key=lambda row: -row.gmac)[:count]


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    sizes = [" x ".join(map(str, shape)) for shape in result["shapes_zyx"]]
    lines = [
        f"{len(result['rows'])} networks of the fast family, 1 channel, {result['classes']} "
        f"classes; {result['engine']}, {result['processor']}; CPU ms, medians of "
        f"{result['repeats']} turns. "
        "On a front: no quicker network has as many parameters (P), or multiply-adds (M); p and m: "
        "none of the same stem, whose logits are as fine.",
        "",
        f"| stem | widths | per block | parameters | GMAC | {sizes[0]} | {sizes[1]} "
        "| GMAC per s | front |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        widths = " ".join(map(str, row["width"]))
        front = " ".join(MARKS[what] for what in row["fronts"])
        first, second = row["cpu_ms"]
        lines.append(
            f"| {row['stem']} | {widths} | {row['convolutions']} | {row['parameters']:,} "
            f"| {row['gmac']:.1f} | {first:.0f} | {second:.0f} "
            f"| {1000 * row['gmac'] / first:.0f} | {front} |"
        )
    return "\n".join(lines) + "\n"


def search(repeats: int) -> dict[str, Any]:
    """The whole study as plain data."""
    chosen = list(dict.fromkeys(candidates()))
    torch.manual_seed(0)
    return {
        "shapes_zyx": [list(shape) for shape in SHAPES],
        "classes": CLASSES,
        "repeats": repeats,
        "engine": f"onnxruntime {onnxruntime.__version__}, 1 thread",
        "processor": processor(),
        "rows": [asdict(row) for row in measure(chosen, repeats)],
    }


def main() -> None:
    """Measure and write, or read again; then say what fits the budget."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="the JSON to write, and the table with it")
    parser.add_argument("--read", type=Path, help="a result to read instead of measuring")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--most-ms", type=float, default=float("inf"), help="for the first shape")
    parser.add_argument("--most-parameters", type=float, default=float("inf"))
    options = parser.parse_args()
    if options.read:
        result = json.loads(options.read.read_text(encoding="utf-8"))
        result["rows"] = [asdict(row) for row in marked([Row(**row) for row in result["rows"]])]
    else:
        result = search(options.repeats)
    if options.out:
        write_text(options.out, json.dumps(result, indent=1) + "\n")
        said = TABLE.read_text(encoding="utf-8") if TABLE.exists() else ""
        write_text(TABLE, said.split(MARKER)[0] + MARKER + table(result))
    rows = [Row(**row) for row in result["rows"]]
    for row in within(rows, options.most_ms, options.most_parameters):
        name = Candidate(row.stem, tuple(row.width), row.convolutions).name
        print(f"{name}: {row.parameters:,} parameters, {row.gmac} GMAC, {row.cpu_ms[0]} ms")


if __name__ == "__main__":
    main()
