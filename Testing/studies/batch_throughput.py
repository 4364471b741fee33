"""Which share of the cores a folder of cases keeps busy.

    python Testing/studies/batch_throughput.py

makes 100 images like the bundled sample and 10 CT-like volumes of about 512 x 512 x 200, segments
each folder by `distillseg segment` in a process of its own, and prints the line that ends a batch.
Other work on the machine takes cores away, which counts as not busy here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DistillSegLib.benchmark.measure import run_job
from DistillSegLib.benchmark.subject import FULL, as_image, phantom
from DistillSegLib.machine import physical_cores
from DistillSegLib.places import resources

SAMPLE = "Samples/hippocampus-mean.nii.gz"


def write_samples(folder: Path, count: int) -> None:
    """The sample, moved a little, brighter or darker, with noise."""
    image = sitk.ReadImage(str(resources() / SAMPLE))
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    for number in range(count):
        random = np.random.default_rng(number)
        moved = np.roll(array * random.uniform(0.8, 1.2), random.integers(-2, 3, 3), (0, 1, 2))
        noisy = moved + random.normal(0, 0.03 * array.std(), array.shape)
        case = sitk.GetImageFromArray(noisy.astype(np.float32))
        case.CopyInformation(image)
        sitk.WriteImage(case, str(folder / f"case{number:03}.nii.gz"))


def write_volumes(folder: Path, count: int) -> None:
    """Phantoms of 160 slices and more, compressed."""
    for number in range(count):
        array, _ = phantom((160 + 4 * number, *FULL.shape[1:]), seed=number)
        file = str(folder / f"ct{number:02}.nii.gz")
        sitk.WriteImage(as_image(array, FULL.spacing_mm), file, useCompression=True)


def measure(cases: Path, package: str, engine: str, out: Path) -> dict:
    """The figures of one batch."""
    call = ["segment", cases, "--package", package, "--out", out, "--engine", engine, "--json", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "DistillSegLib.cli", *map(str, call)],
        stdout=subprocess.PIPE,
        check=True,
    )
    told = json.loads(done.stdout)
    kept = ("engine", "seconds", "cpu_seconds", "cores", "busy", "peak_memory_mb")
    return {name: told[name] for name in kept} | {"cases": len(told["cases"])}


def main() -> None:
    """Make both folders and measure them with each engine."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engines", nargs="+", default=["onnxruntime"])
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--volumes", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "samples").mkdir()
        (folder / "volumes").mkdir()
        write_samples(folder / "samples", options.samples)
        write_volumes(folder / "volumes", options.volumes)
        job = {"setup": asdict(FULL), "names": ["untrained-fast"], "folder": name}
        made = run_job("students", job, threads=physical_cores() or 1)["found"]
        packages = {
            "samples": "hippocampus-fast",
            "volumes": made["untrained-fast"]["package"],
        }
        for engine in options.engines:
            for kind, package in packages.items():
                figures = measure(folder / kind, package, engine, folder / f"{kind}-{engine}")
                print(kind, figures, f"load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
