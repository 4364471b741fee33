"""The base of tests of the panel: the module opened on an empty scene."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path
from unittest import mock, skipUnless

import SimpleITK as sitk
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
        ui = self.panel.ui
        for section in (ui.modelsSection, ui.segmentSection, ui.resultsSection):
            section.collapsed = False  # other tests fold them for their pictures
        self.addCleanup(self.checkFaults)
        self.addCleanup(self.leaveModule)
        self.addCleanup(self.waitForWorkers)

    def checkFaults(self):
        """No section failed, and so hid behind the others."""
        faults = set(self.panel.faults)
        self.panel.faults.clear()
        self.panel.models.lastChosen = ""
        self.assertEqual(faults, set())

    def sample(self, name="sample"):
        node = slicer.util.loadVolume(str(SAMPLE))
        node.SetName(name)
        slicer.app.processEvents()
        return node

    def keepModules(self):
        """After a test that reloads, let the next tests and the panel share their classes again."""
        ours = ("DistillSegPanel", "DistillSegLib")
        kept = {n: m for n, m in sys.modules.items() if n.partition(".")[0] in ours}

        def restore():
            slicer.util.getModuleWidget("DistillSeg").cleanup()
            sys.modules.update(kept)
            slicer.util.reloadScriptedModule("DistillSeg")

        self.addCleanup(restore)

    def waitForWorkers(self):
        """What is measured after an edit, and what a cancelled worker cannot interrupt."""
        self.waitUntil(self.isQuiet, 60, "A worker goes on.")

    def isQuiet(self):
        """Whether nothing runs, nor is about to."""
        results = self.panel.results
        return not self.workers() and (results is None or results.findings.isCurrent)

    def workers(self):
        return [thread for thread in threading.enumerate() if thread.name == "DistillSeg"]

    def large(self, margin=60, name="head"):
        """A volume much larger than the model's field of view, with the sample in its middle."""
        image = sitk.ConstantPad(sitk.ReadImage(str(SAMPLE)), [margin] * 3, [margin] * 3, 0)
        path = self.home / f"{name}.nii.gz"
        sitk.WriteImage(image, str(path))
        node = slicer.util.loadVolume(str(path))
        node.SetName(name)
        slicer.app.processEvents()
        return node

    def startLong(self, margin=75):
        """Begin a run that takes seconds, so that there is a mid-run."""
        volumeNode = self.large(margin)
        self.choose(volumeNode, REFERENCE)
        self.panel.parameters.forceScope = True
        self.panel.segment.ui.segmentButton.click()
        self.assertTrue(self.panel.busy, self.panel.said)
        self.waitFor(0.3)
        self.assertTrue(self.panel.busy, self.panel.said)
        return volumeNode

    def choose(self, volumeNode=None, model=FAST):
        self.panel.parameters.model = model
        self.panel.parameters.inputVolume = volumeNode or self.sample()

    def segment(self, seconds=60):
        """Click, and wait for the result and what is said about it."""
        self.panel.segment.ui.segmentButton.click()
        self.waitUntil(lambda: not self.panel.busy, seconds, self.panel.said)
        self.waitUntil(lambda: self.panel.results.findings.isCurrent, seconds)
        self.settle()

    def settle(self):
        """Let what comes "soon" after a change happen."""
        self.waitFor(0.1)

    def nodes(self, kind="vtkMRMLNode"):
        return [node.GetID() for node in slicer.util.getNodesByClass(kind)]
