"""Draw accuracy against cost, of every organ's bundled models, from manifests and measured costs.

    python Testing/studies/accuracy_plots.py

writes `Resources/Studies/<organ>-milliseconds.svg` and `-parameters.svg`: mean Dice over structures
and held-out cases, CPU milliseconds of the network on the bundled sample in one thread.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from plots import Point, scatter

from DistillSegLib.files import write_text
from DistillSegLib.package import read_package

RESOURCES = Path(__file__).resolve().parents[2] / "Resources"
AXES = {
    "milliseconds": ("network_cpu_ms", "CPU milliseconds of the network, one thread"),
    "parameters": ("parameters", "parameters"),
}


def accuracy() -> dict[str, float]:
    """Mean Dice of each bundled model that has test scores."""
    found = {}
    for path in sorted((RESOURCES / "Models").glob("*.distillseg")):
        manifest = read_package(path).manifest
        if manifest.test:
            dice = [score.mean for score in manifest.test.scores if score.metric == "dice"]
            found[manifest.id] = statistics.fmean(dice)
    return found


def plots() -> dict[str, str]:
    """File name -> SVG, for each organ whose costs were measured."""
    dice, made = accuracy(), {}
    for file in sorted((RESOURCES / "Studies").glob("*-cost.json")):
        costs = json.loads(file.read_text(encoding="utf-8"))["packages"]
        for name, (key, label) in AXES.items():
            points = [Point(model, cost[key], dice[model]) for model, cost in costs.items()]
            organ = file.stem.removesuffix("-cost")
            made[f"{organ}-{name}.svg"] = scatter(points, label, "mean Dice of the held-out cases")
    return made


if __name__ == "__main__":
    for name, text in plots().items():
        write_text(RESOURCES / "Studies" / name, text)
        print(name)
