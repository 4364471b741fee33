"""Our own pipeline in a child process: once from file to file, or many times in memory."""

from __future__ import annotations

import time
from typing import Any

from DistillSegLib.benchmark.measure import Stopwatch


def once(
    stopwatch: Stopwatch, threads: int, *, package: str, engine: str, image: str, out: str
) -> dict[str, Any]:
    """From the start of Python to the written file."""
    with stopwatch("import"):
        from DistillSegLib.inference import Segmenter
        from DistillSegLib.segmentations import write_segmentation
    with stopwatch("load"):
        segmenter = Segmenter(package, threads=threads, engine=engine)
    start = time.process_time()
    segmentation = segmenter.segment(image, force_scope=True)
    cpu = time.process_time() - start
    stopwatch.wall.update(segmentation.seconds)
    with stopwatch("write"):
        write_segmentation(segmentation, out)
    return {"parameters": segmenter.variant.parameters, "segment_cpu_s": cpu}


def warm(
    stopwatch: Stopwatch, threads: int, *, package: str, engine: str, image: str, repeats: int
) -> dict[str, Any]:
    """The image in memory, the session kept: `repeats` runs after one that warms up.

    Returns:
        For each run its wall and CPU seconds, and the wall seconds of its stages.
    """
    from DistillSegLib.images import read_image
    from DistillSegLib.inference import Segmenter

    segmenter, volume = Segmenter(package, threads=threads, engine=engine), read_image(image)
    segmenter.segment(volume, force_scope=True)
    runs = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        segmentation = segmenter.segment(volume, force_scope=True)
        runs.append(
            {
                "wall_s": time.perf_counter() - wall,
                "cpu_s": time.process_time() - cpu,
                "stages": segmentation.seconds,
            }
        )
    return {"runs": runs}


def agreement(stopwatch: Stopwatch, threads: int, *, first: str, second: str) -> dict[str, Any]:
    """The share of voxels to which two files give the same label."""
    import numpy as np
    import SimpleITK as sitk

    a, b = (sitk.GetArrayFromImage(sitk.ReadImage(path)) for path in (first, second))
    return {"share": float(np.mean(a == b)) if a.shape == b.shape else 0.0}
