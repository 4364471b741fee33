"""The memory said before a run is that of the run, each measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import json, sys
import numpy as np
import SimpleITK as sitk
from DistillSegLib.estimates import estimate
from DistillSegLib.inference import Segmenter
from DistillSegLib.machine import peak_memory_bytes

edge, memory = json.loads(sys.argv[1])
segmenter = Segmenter("hippocampus-fast", engine="onnxruntime", threads=1, memory_bytes=memory)
small = sitk.GetImageFromArray(np.zeros((32, 32, 32), np.int16))
segmenter.segment(small, force_scope=True)
voxels = np.random.default_rng(0).integers(0, 999, (edge,) * 3, dtype=np.int16)
image = sitk.GetImageFromArray(voxels)
before = peak_memory_bytes()
said = estimate(
    segmenter.package.manifest, segmenter.variant, size_mm=(edge,) * 3, voxels=edge**3,
    memory_bytes=memory,
)
segmenter.segment(image, force_scope=True)
print(json.dumps([said.memory_bytes, peak_memory_bytes() - before, said.single_pass]))
"""


@pytest.mark.parametrize(("edge", "memory"), [(128, None), (176, None), (176, 60_000_000)])
def test_the_peak_is_foretold_to_a_fifth(edge, memory):
    pytest.importorskip("onnxruntime")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps([edge, memory])],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    said, measured, at_once = json.loads(done.stdout)
    assert at_once == (memory is None)
    assert measured == pytest.approx(said, rel=0.2)
