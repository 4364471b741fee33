"""What a pass through a model takes of memory, measured in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from math import lcm, prod
from pathlib import Path

from DistillSegLib.errors import DistillSegError
from DistillSegLib.runtime import Engine
from DistillSegLib.windows import Size, per_axis

MEASURED_EDGES = (64, 96)  # voxels of the cubes that memory is measured on


def measure_memory(
    path: Path, channels: int, multiple: Size, *, engine: Engine = "onnxruntime"
) -> float:
    """Peak memory of a pass, in bytes per voxel of input.

    Two processes of their own each run the engine on a cube; the peak of their resident memory is
    read, and its growth from the smaller to the larger cube is divided by the voxels between them.
    What the engine and the weights take by themselves thereby drops out.
    """
    step = lcm(*per_axis(multiple))
    edges = [-(-edge // step) * step for edge in MEASURED_EDGES]
    edges[1] = max(edges[1], edges[0] + step)
    small, large = (_peak_bytes(path, (1, channels, *[edge] * 3), engine) for edge in edges)
    return max((large - small) / (edges[1] ** 3 - edges[0] ** 3), 4.0 * channels)


_CHILD = """
import json, sys
from pathlib import Path
import numpy as np
from DistillSegLib.machine import peak_memory_bytes
from DistillSegLib.runtime import Session
path, shape, engine = json.loads(sys.argv[1])
Session(Path(path), engine=engine)(np.zeros(shape, np.float32))
print(peak_memory_bytes())
"""


def _peak_bytes(path: Path, shape: Sequence[int], engine: Engine) -> int:
    library = str(Path(__file__).parents[2])
    paths = [library, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, json.dumps([str(path), shape, engine])],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DistillSegError(
            f"The memory of the model could not be measured on {prod(shape)} voxels ({last}); "
            "close other programs and export again."
        )
    return int(done.stdout)
