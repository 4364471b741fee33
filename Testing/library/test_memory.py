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

MANY = """
import numpy as np
from DistillSegLib.machine import peak_memory_bytes
from DistillSegLib.package import load_package
from DistillSegLib.runtime import Session

package = load_package("hippocampus-fast")
variant = package.variant()
session = Session(package.model_bytes(variant), engine="onnxruntime", threads=1)
before = peak_memory_bytes()
for edge in (96, 104, 112, 120, 128, 136):
    session(np.zeros((1, 1, edge, edge, edge), np.float32))
print((peak_memory_bytes() - before) / (variant.bytes_per_voxel * edge**3))
"""


def in_a_process_of_its_own(code: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_volumes_of_many_sizes_take_no_more_than_the_largest():
    pytest.importorskip("onnxruntime")
    assert float(in_a_process_of_its_own(MANY)) < 1.3


@pytest.mark.parametrize(("edge", "memory"), [(128, None), (176, None), (176, 60_000_000)])
def test_the_peak_is_foretold_to_a_fifth(edge, memory):
    pytest.importorskip("onnxruntime")
    done = in_a_process_of_its_own(CHILD, json.dumps([edge, memory]))
    said, measured, at_once = json.loads(done)
    assert at_once == (memory is None)
    assert measured == pytest.approx(said, rel=0.2)
