"""DistillSeg: fast segmentation on any computer. The module's four classes; the rest is beside."""

import os
import sys
import unittest

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

OURS = ("DistillSegLib", "DistillSegPanel")
OLDEST_PYTHON = (3, 10)  # Slicer 5.10 brings 3.12


def tooOld():
    """One sentence for a Slicer that is too old for the panel, otherwise empty."""
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return ""
    text = _("DistillSeg needs 3D Slicer 5.10 or later, and this is {version}; update Slicer.")
    return text.format(version=slicer.app.applicationVersion)


def findLibrary():
    """Make `DistillSegLib` importable: installed it lies beside this file, in a checkout one up."""
    here = os.path.dirname(os.path.abspath(__file__))
    for folder in (here, os.path.dirname(here)):
        if os.path.isdir(os.path.join(folder, "DistillSegLib")) and folder not in sys.path:
            sys.path.append(folder)


class DistillSeg(ScriptedLoadableModule):
    """What Slicer's module list shows."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("DistillSeg")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["DistillSeg contributors"]
        parent.helpText = _(
            "Segments CT and MR images in seconds on any computer, with small networks distilled "
            "from large ones; compares the result with the large network or with any other "
            "segmentation, and leads to the slices where they differ most. No image leaves this "
            "computer. For research; not a medical device."
        )
        parent.helpText += self.getDefaultModuleDocumentationLink()
        parent.acknowledgementText = _(
            "The models and the sample of the hippocampus rest on Task04 Hippocampus of the "
            "Medical Segmentation Decathlon (Antonelli et al., Nature Communications 13, 4128, "
            "2022; Vanderbilt University Medical Center; CC BY-SA 4.0), the heart's sample on the "
            "Sunnybrook Cardiac Data (Radau et al., MIDAS Journal, 2009; CC0). Each model's card "
            "names its data."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)
        slicer.app.connect("startupCompleted()", registerLayout)


def registerSampleData():
    """Offer the bundled samples in the module Sample Data; they are files of the extension."""
    import hashlib

    import SampleData

    findLibrary()
    from DistillSegLib.places import resources, sample_facts

    for path in sorted((resources() / "Samples").glob("*.nii.gz")):
        part = path.name.removesuffix(".nii.gz").removesuffix("-mean").replace("-", " ")
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="DistillSeg",
            sampleName="DistillSeg" + part.title().replace(" ", ""),
            uris=path.as_uri(),
            fileNames=path.name,
            checksums="SHA256:" + hashlib.sha256(path.read_bytes()).hexdigest(),
            nodeNames=sample_facts(path)["name"],
        )


def registerLayout():
    """Make the views of a comparison known, so that a saved scene opens with them."""
    if tooOld():
        return
    findLibrary()
    from DistillSegPanel import CompareLayout

    CompareLayout.register()


class DistillSegWidget(ScriptedLoadableModuleWidget):
    """Holds the panel, which is made when the module is first opened."""

    def __init__(self, parent=None):
        self.logic = None
        self.panel = None
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        if tooOld():
            label = qt.QLabel(tooOld())
            label.setWordWrap(True)
            self.layout.addWidget(label)
            self.layout.addStretch(1)
            return
        self.logic = DistillSegLogic()
        from DistillSegPanel.Panel import Panel

        self.panel = Panel(self.logic, self.resourcePath("UI/DistillSeg.ui"))
        self.layout.addWidget(self.panel.widget)

    def enter(self):
        """The module is shown."""
        if self.panel is not None:
            self.panel.enter()

    def exit(self):
        """Another module is shown."""
        if self.panel is not None:
            self.panel.exit()

    def cleanup(self):
        """The module is unloaded or reloaded: leave no thread, timer or observer."""
        if self.panel is not None:
            self.panel.cleanup()
            self.panel = None
        if self.logic is not None:
            self.logic.close()

    def onReload(self):
        """Load this file and all that it rests on anew."""
        self.cleanup()
        for name in [each for each in sys.modules if each.partition(".")[0] in OURS]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)


class DistillSegLogic(ScriptedLoadableModuleLogic):
    """For the Python console, with or without the panel and the main window.

    >>> from DistillSeg import DistillSegLogic
    >>> segmentationNode = DistillSegLogic().segment(volumeNode, "hippocampus-fast")
    """

    def __init__(self, parent=None):
        ScriptedLoadableModuleLogic.__init__(self, parent)
        findLibrary()
        from DistillSegPanel.Logic import Logic

        self.work = Logic()

    def segment(self, volumeNode, model, roiNode=None, outputNode=None, **options):
        """Segment a volume (or a list, one for each channel) and return the segmentation node.

        Options: forceScope, threads, engine, naming, cleanUp, confidenceMap, onProgress, cancelled;
        see `DistillSegPanel.Logic`.
        """
        return self.work.segment(volumeNode, model, roiNode, outputNode, **options)

    def compare(self, a, b, toleranceMm=1.0):
        """Two segmentation nodes, structure by structure, as plain dictionaries."""
        return self.work.compare(a, b, toleranceMm)

    def copyPython(self, call=None):
        """The text that repeats a call, by default the last one."""
        return self.work.copyPython(call)

    def getParameterNode(self):
        """All choices of the panel, typed, saved with the scene."""
        from DistillSegPanel.Parameters import Parameters

        return Parameters(ScriptedLoadableModuleLogic.getParameterNode(self))

    def close(self):
        """Stop what runs and let go of the model."""
        self.work.close()


class DistillSegTest(ScriptedLoadableModuleTest):
    """Segments the bundled sample; in a checkout, also runs every test beside the module."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self, **_kwargs):
        """Called by Slicer's "Reload and Test"."""
        self.setUp()
        self.test_the_sample_is_segmented()
        self.runTestsBeside()

    def test_the_sample_is_segmented(self):
        findLibrary()
        from DistillSegLib.places import resources

        path = resources() / "Samples" / "hippocampus-mean.nii.gz"
        volumeNode = slicer.util.loadVolume(str(path))
        segmentationNode = DistillSegLogic().segment(volumeNode, "hippocampus-fast")
        self.assertEqual(segmentationNode.GetSegmentation().GetNumberOfSegments(), 2)
        for number in (1, 2):
            mask = slicer.util.arrayFromSegmentBinaryLabelmap(
                segmentationNode, f"DistillSeg_{number}", volumeNode
            )
            self.assertTrue(1000 < mask.sum() < 2500, mask.sum())  # the sample's 1.6 and 1.5 ml

    def runTestsBeside(self):
        """The test files of a checkout; an installed extension carries none."""
        here = os.path.dirname(os.path.abspath(__file__))
        folder = os.path.join(os.path.dirname(here), "Testing", "slicer")
        if not os.path.isdir(folder):
            return
        found = unittest.defaultTestLoader.discover(folder, "test_*.py", folder)
        result = unittest.TextTestRunner().run(found)
        self.assertTrue(result.wasSuccessful(), [str(test) for test, _text in result.failures])
