"""The base of tests of the panel: the module opened on an empty scene."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from unittest import mock, skipUnless

import slicer
from SlicerCase import SlicerCase

import DistillSeg

DistillSeg.findLibrary()

from DistillSegLib.places import resources  # noqa: E402

SAMPLE = resources() / "Samples" / "hippocampus-mean.nii.gz"
FAST, REFERENCE = "hippocampus-fast@1.0.0", "hippocampus-reference@1.0.0"
needsEngine = skipUnless(find_spec("onnxruntime"), "needs onnxruntime, which is not installed here")


class PanelCase(SlicerCase):
    """Opens the module with an empty scene and a user's folder of its own."""

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name)
        kept = mock.patch.dict(os.environ, {"DISTILLSEG_HOME": folder.name})
        kept.start()
        self.addCleanup(kept.stop)
        self.panel = self.openModule("DistillSeg").panel
        self.addCleanup(self.leaveModule)

    def sample(self, name="sample"):
        node = slicer.util.loadVolume(str(SAMPLE))
        node.SetName(name)
        slicer.app.processEvents()
        return node

    def choose(self, volumeNode=None, model=FAST):
        self.panel.parameters.model = model
        self.panel.parameters.inputVolume = volumeNode or self.sample()

    def segment(self, seconds=60):
        self.panel.segment.ui.segmentButton.click()
        self.waitUntil(lambda: not self.panel.busy, seconds, self.panel.said)
