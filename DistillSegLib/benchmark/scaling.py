"""How time and memory grow with the volume: the phantom from 128³ to 512x512x800 voxels."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

from DistillSegLib.benchmark.measure import JobFailed, run_job
from DistillSegLib.benchmark.summary import medians
from DistillSegLib.machine import free_memory_bytes

SIZES = (
    (128, 128, 128),
    (128, 256, 256),
    (256, 256, 256),
    (128, 512, 512),
    (200, 512, 512),
    (400, 512, 512),
    (800, 512, 512),
)
QUICK_SIZES = ((24, 48, 48), (32, 64, 64), (48, 96, 96))
FIRST_BYTES = 3e8, 30.0  # memory, and more for each voxel, before two sizes were measured
RESERVE = 0.9  # of what is free


def measure_scale(
    package: str,
    *,
    engines: Sequence[str],
    threads: int,
    repeats: int,
    quick: bool,
    spacing_mm: tuple[float, float, float],
    folder: Path,
    remark: Callable[[str], None],
) -> list[dict[str, Any]]:
    """One package on growing volumes, from uncompressed file to label file.

    A size whose memory, going on in a straight line from the sizes before, would exceed what is
    free is left out, and so is every larger one; `remark` is told.

    Returns:
        A dict for each engine and size: engine, shape (z, y, x), voxels, runs, median.
    """
    steps: list[dict[str, Any]] = []
    for shape in QUICK_SIZES if quick else SIZES:
        if reason := _too_large(shape, steps, folder):
            remark(f"{_by(shape)} voxels and more are left out: {reason}")
            break
        image, out = folder / "scale.nii", folder / "scale-labels.nii.gz"
        job = {"shape": shape, "spacing_mm": spacing_mm, "out": str(image)}
        run_job("phantom", job, threads=threads)
        now = [
            {"engine": engine, "shape": shape, "voxels": prod(shape), "runs": []}
            for engine in engines
        ]
        for _ in range(repeats):
            for step in now:
                settings = {
                    "package": package,
                    "engine": step["engine"],
                    "image": str(image),
                    "out": str(out),
                }
                try:
                    step["runs"].append(run_job("lean", settings, threads=threads))
                except JobFailed as problem:
                    remark(f"{_by(shape)} voxels with {step['engine']}: {problem}")
        image.unlink()
        steps += [step | {"median": _medians(step["runs"])} for step in now]
    return steps


def _medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """With the CPU seconds from reading to labels, which a busy machine disturbs least."""
    found = medians(runs)
    if found:
        found["segment_cpu_s"] = median(run["found"]["segment_cpu_s"] for run in runs)
    return found


def expected_bytes(voxels: int, steps: Sequence[dict[str, Any]]) -> float:
    """Memory of a size that was not measured yet, from the two largest that were."""
    known: dict[int, float] = {}
    for step in steps:
        if step["median"]:
            peak = step["median"]["peak_mb"] * 1e6
            known[step["voxels"]] = max(peak, known.get(step["voxels"], 0.0))
    if len(known) < 2:
        return FIRST_BYTES[0] + FIRST_BYTES[1] * voxels
    small, large = sorted(known)[-2:]
    rate = max((known[large] - known[small]) / (large - small), 0.0)
    return known[large] + rate * (voxels - large)


def _too_large(shape: Sequence[int], steps: Sequence[dict[str, Any]], folder: Path) -> str:
    voxels, free = prod(shape), free_memory_bytes()
    needed = expected_bytes(voxels, steps)
    if needed > RESERVE * free:
        return f"about {needed / 1e9:.1f} GB of memory are needed, {free / 1e9:.1f} GB are free."
    needed, free = 3 * voxels, shutil.disk_usage(folder).free
    if needed > RESERVE * free:
        return f"about {needed / 1e9:.1f} GB of disk are needed, {free / 1e9:.1f} GB are free."
    return ""


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape[::-1]))
