"""Draw accuracy against cost, of every organ's models, from manifests, measured costs and studies.

    python Testing/studies/accuracy_plots.py

writes `Resources/Studies/<organ>-milliseconds.svg` and `-parameters.svg`: mean Dice over structures
and held-out cases, CPU milliseconds of the network on the bundled sample in one thread. Beside
parameters stand the arms of the studies on that organ too, each as the mean over its runs; theirs
may be other held-out cases and shorter trainings than the models'.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path

import study_design as studies
import study_table
from scatter import Chart, Point, scatter

from DistillSegLib.files import write_text
from DistillSegLib.package import read_package

RESOURCES = Path(__file__).resolve().parents[2] / "Resources"
AXES = {
    "milliseconds": ("network_cpu_ms", "CPU milliseconds of the network, one thread"),
    "parameters": ("parameters", "parameters"),
}
ALIKE = 1.05  # times: points that cost less than that apart show nothing
FAR = 0.15  # of Dice below the worst model: drawn, it would press all others together
AIMS = {"fast": 0.005, "tiny": 0.015}  # of Dice, below the reference


def accuracy() -> dict[str, float]:
    """Mean Dice of each bundled model that has test scores."""
    found = {}
    for path in sorted((RESOURCES / "Models").glob("*.distillseg")):
        manifest = read_package(path).manifest
        if manifest.test:
            dice = [score.mean for score in manifest.test.scores if score.metric == "dice"]
            found[manifest.id] = statistics.fmean(dice)
    return found


def models(costs: Mapping[str, Mapping], key: str, dice: Mapping[str, float]) -> list[Point]:
    """The bundled models, by the last word of their names and their Dice."""
    points = []
    for model, cost in costs.items():
        name = model.rpartition("-")[2]
        label = f"{name} {dice[model]:.3f}".replace(" 0.", " .")
        points.append(Point(label, cost[key], dice[model], special=name == "reference"))
    return points


def arms(organ: str, results: Path = studies.RESULTS) -> list[Point]:
    """The mean over its runs of every arm that was run, of the studies on an organ."""
    points = []
    for path in sorted(studies.HERE.glob("*.toml")):
        study = studies.load_study(path.stem)
        if study.data == organ:
            points += arms_of(study, results)
    return points


def arms_of(study: studies.Study, results: Path = studies.RESULTS) -> list[Point]:
    """The arms of one study; packages among them are there already, as models."""
    points, kept = [], study_table.read(study, results)
    for arm in study.arms:
        if arm.package or not kept[arm.name]:
            continue
        row = study_table.row_of(arm.title, kept[arm.name])
        mean, baseline = statistics.fmean(row.by_run.values()), arm.name == study.baseline
        points.append(Point(row.title, row.runs[0]["parameters"], mean, study.name, baseline))
    return points


def near(points: list[Point]) -> tuple[list[Point], str]:
    """The points that are drawn, and what is said of the others."""
    floor = min(p.y for p in points if not p.study) - FAR
    left_out: dict[str, list[float]] = {}
    for point in points:
        if point.y < floor:
            left_out.setdefault(point.study, []).append(point.y)
    said = [
        f"{name} ({len(found)} arms, {min(found):.2f} to {max(found):.2f})".replace(" 0.", " .")
        for name, found in left_out.items()
    ]
    note = f"Far below, not drawn: {', '.join(said)}".replace("(0.", "(.") if said else ""
    return [p for p in points if p.y >= floor], note


def aims(points: list[Point], names: list[str]) -> list[tuple[float, str]]:
    """How far below the reference its students may lie, for the students that there are."""
    reference = [p.y for p in points if p.special and not p.study]
    return [
        (reference[0] - below, f"aim of {name}: {100 * below:g} points below the reference")
        for name, below in AIMS.items()
        if reference and name in names
    ]


def plots() -> dict[str, str]:
    """File name -> SVG, for each organ whose costs were measured and differ."""
    dice, made = accuracy(), {}
    for file in sorted((RESOURCES / "Studies").glob("*-cost.json")):
        costs = json.loads(file.read_text(encoding="utf-8"))["packages"]
        organ = file.stem.removesuffix("-cost")
        for name, (key, label) in AXES.items():
            points = models(costs, key, dice)
            lines = aims(points, [model.rpartition("-")[2] for model in costs])
            points += arms(organ) if name == "parameters" else []
            if max(point.x for point in points) < ALIKE * min(point.x for point in points):
                continue
            title = f"{organ.replace('-', ' ').capitalize()}: accuracy against "
            title += "size" if name == "parameters" else "computing time"
            y_label = "mean Dice over structures and held-out cases"
            points, note = near(points)
            chart = Chart(title, label, y_label, points, lines, note)
            made[f"{organ}-{name}.svg"] = scatter(chart)
    return made


if __name__ == "__main__":
    for name, text in plots().items():
        write_text(RESOURCES / "Studies" / name, text)
        print(name)
