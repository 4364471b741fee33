"""What packages cost, in one run, each on its sample: CPU time of the network and of all.

    python Testing/studies/measure_cost.py hippocampus-fast hippocampus-reference \
        --out Resources/Studies/hippocampus-cost.json

The packages take turns, so that a machine whose speed drifts treats both alike; medians are told.
Times are CPU seconds of one thread, which other programs on the machine disturb least.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import onnxruntime

from DistillSegLib import Segmenter
from DistillSegLib.catalogue import sample_of
from DistillSegLib.files import write_text
from DistillSegLib.images import read_image
from DistillSegLib.runtime import Session
from DistillSegLib.windows import whole_volume


def measure(packages: list[str], image: Path | None, repeats: int) -> dict:
    """CPU milliseconds of each package on an image, or its own sample, and last to first."""
    segmenters = {name: Segmenter(name, threads=1, engine="onnxruntime") for name in packages}
    manifests = {name: segmenter.package.manifest for name, segmenter in segmenters.items()}
    files = {name: image or sample_of(s.package) for name, s in segmenters.items()}
    volumes = {name: read_image(file) for name, file in files.items()}
    images = {
        name: manifest.preprocessing.apply([volumes[name]]).array
        for name, manifest in manifests.items()
    }
    multiple = {name: manifest.multiple for name, manifest in manifests.items()}
    stride = {name: segmenter.variant.stride for name, segmenter in segmenters.items()}
    sessions = {
        name: Session(s.package.model_bytes(s.variant), threads=1, engine="onnxruntime")
        for name, s in segmenters.items()
    }
    costs = {name: {"network": [], "image": []} for name in packages}
    for number in range(repeats + 1):  # the first turn warms up
        for name, segmenter in segmenters.items():
            start = time.process_time()
            whole_volume(images[name], sessions[name], multiple=multiple[name], stride=stride[name])
            network = time.process_time() - start
            start = time.process_time()
            segmenter.segment(volumes[name])
            if number:
                costs[name]["network"].append(network * 1000)
                costs[name]["image"].append((time.process_time() - start) * 1000)
    rows = {
        name: {
            "parameters": segmenters[name].variant.parameters,
            "package_mb": round(segmenters[name].package.path.stat().st_size / 1e6, 2),
            "network_cpu_ms": round(statistics.median(cost["network"]), 2),
            "image_cpu_ms": round(statistics.median(cost["image"]), 2),
        }
        for name, cost in costs.items()
    }
    first, last = rows[packages[0]], rows[packages[-1]]
    return {
        "image": ", ".join(sorted({file.name for file in files.values()})),
        "voxels_zyx": list(volumes[packages[0]].GetSize()[::-1]),
        "repeats": repeats,
        "engine": f"onnxruntime {onnxruntime.__version__}, 1 thread",
        "machine": platform.machine(),
        "packages": rows,
        "network_ratio": round(last["network_cpu_ms"] / first["network_cpu_ms"], 2),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("packages", nargs="+")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = measure(options.packages, options.image, options.repeats)
    text = json.dumps(found, indent=1) + "\n"
    if options.out:
        write_text(options.out, text)
    print(text)


if __name__ == "__main__":
    main()
