"""From measurements to numbers: medians, ratios, exponents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from statistics import median
from typing import Any

AROUND = ("import", "load", "read", "write")  # stages that are not computing


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of wall, CPU, memory, computing seconds and each stage; empty without runs."""
    if not runs:
        return {}
    stages = list(dict.fromkeys(stage for run in runs for stage in run["stages"]))
    return {
        "wall_s": median(run["wall_s"] for run in runs),
        "cpu_s": median(run["cpu_s"] for run in runs),
        "peak_mb": median(run["peak_mb"] for run in runs),
        "computing_s": median(_computing(run["stages"]) for run in runs),
        "stages": {
            stage: median(run["stages"].get(stage, 0.0) for run in runs) for stage in stages
        },
    }


def in_memory_medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of runs in a warm process: wall and CPU seconds, and each stage."""
    stages = list(dict.fromkeys(stage for run in runs for stage in run["stages"]))
    return {
        "wall_s": median(run["wall_s"] for run in runs),
        "cpu_s": median(run["cpu_s"] for run in runs),
        "stages": {
            stage: median(run["stages"].get(stage, 0.0) for run in runs) for stage in stages
        },
    }


def _computing(stages: Mapping[str, float]) -> float:
    return sum(seconds for stage, seconds in stages.items() if stage not in AROUND)


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every other pipeline divided by every one of ours: wall, CPU and memory.

    `same_weights` tells whether both run the same network, `teacher` whether the other one runs
    nnU-Net's default; then the network is part of the difference.
    """
    measured = [row for row in rows if row["median"]]
    ours = [row for row in measured if row["work"] == "lean"]
    return [
        {
            "peer": peer["pipeline"],
            "peer_model": peer["model"],
            "model": our["model"],
            "engine": our["engine"],
            "same_weights": peer["model"] == our["model"],
            "teacher": peer["teacher"],
            "wall": peer["median"]["wall_s"] / our["median"]["wall_s"],
            "cpu": peer["median"]["cpu_s"] / our["median"]["cpu_s"],
            "memory": peer["median"]["peak_mb"] / our["median"]["peak_mb"],
        }
        for peer in measured
        if peer["work"] != "lean"
        for our in ours
    ]


def growth(steps: Sequence[dict[str, Any]], engine: str) -> dict[str, float]:
    """How an engine's measurements grow; time in CPU seconds from reading to labels, if known.

    Returns:
        `time_exponent` and `memory_exponent`: the powers of the number of voxels with which the
        time and the peak of memory grow, by least squares of the logarithms;
        `bytes_per_voxel`: what each further voxel takes, by least squares of the values. Empty for
        fewer than two sizes.
    """
    measured = [step for step in steps if step["engine"] == engine and step["median"]]
    if len(measured) < 2:
        return {}
    voxels = [float(step["voxels"]) for step in measured]
    seconds = [
        step["median"].get("segment_cpu_s") or step["median"]["computing_s"] for step in measured
    ]
    memory = [step["median"]["peak_mb"] * 1e6 for step in measured]
    logs = [log(each) for each in voxels]
    return {
        "time_exponent": slope(logs, [log(each) for each in seconds]),
        "memory_exponent": slope(logs, [log(each) for each in memory]),
        "bytes_per_voxel": slope(voxels, memory),
    }


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the straight line through points, by least squares."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)
