"""The demo module, loaded and unloaded around a test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def load(tmp_path):
    """Loads a variant of the demo module: `load(old, new)` replaces a piece of its code."""
    import demo
    import slicer
    from standin import application

    slicer.mrmlScene.Clear()
    loaded = []

    def load_variant(old: str = "", new: str = "", *, ui: str = demo.UI):
        assert old in demo.MODULE
        application.load_module(demo.write(tmp_path, demo.MODULE.replace(old, new, 1), ui))
        loaded.append(demo.NAME)
        slicer.util.selectModule(demo.NAME)
        slicer.app.processEvents()  # the first painting of the views takes its time
        return slicer.util.getModuleWidget(demo.NAME)

    yield load_variant
    for name in loaded:
        application.unload_module(name)
    sys.path.remove(str(tmp_path)) if str(tmp_path) in sys.path else None


@pytest.fixture
def volume():
    """A bright box in noise, asymmetric in all axes."""
    import numpy as np
    import slicer

    slicer.mrmlScene.Clear()
    voxels = np.random.default_rng(0).normal(0, 8, (20, 30, 40)).astype(np.int16)
    voxels[4:12, 5:20, 6:30] += 150
    directions = np.diag([-1.5, -1.25, 3.0, 1.0])
    directions[:3, 3] = [30, 20, -10]
    node = slicer.util.addVolumeFromArray(
        voxels, ijkToRAS=directions, name="CT", nodeClassName="vtkMRMLScalarVolumeNode"
    )
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node
