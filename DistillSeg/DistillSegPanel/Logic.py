"""Segment and compare: what the panel's buttons and the Python console call.

No widgets and no main window. The voxels are copied on the main thread, the library runs in a
worker, and what it found enters the scene on the main thread again.

Every call takes the same three steps, so that console, panel and batch cannot differ:

    request = logic.prepare(volumeNode, "hippocampus-fast")   # main thread: checks and copies
    segmentation = request.run(report, cancelled)             # any thread
    node = logic.finish(request, segmentation)                # main thread
"""

import slicer
from slicer.i18n import tr as _

from DistillSegLib.comparison import Comparison, compare
from DistillSegLib.errors import Cancelled
from DistillSegPanel import ConfidenceMap, Outputs
from DistillSegPanel.Calls import (
    Call,
    Request,
    Segmenters,
    asTuple,
    checkChannels,
    checkScope,
    estimateFor,
    packageOf,
    pythonOf,
    sizeOf,
)
from DistillSegPanel.Install import ensure
from DistillSegPanel.Jobs import Jobs
from DistillSegPanel.Nodes import checkVolume, imageFromVolume
from DistillSegPanel.Regions import regionFromRoi
from DistillSegPanel.Segments import segmentationFromNode
from DistillSegPanel.Worker import runAndWait


class Logic:
    """Segments and compares nodes of the scene; see the module's docstring.

    Args:
        jobs: runs what `segmentInBackground` starts.
        install: called before a model is run, to make the engine usable.
    """

    def __init__(self, jobs=None, install=ensure):
        self.jobs = jobs or Jobs()
        self.lastCall = None
        self.lastSegmentation = None
        self._install = install
        self._segmenters = Segmenters()

    def segment(
        self,
        volumeNode,
        model,
        roiNode=None,
        outputNode=None,
        *,
        onProgress=None,
        cancelled=None,
        **options,
    ):
        """Segment a volume and return the segmentation node; blocks until it is there.

        Args:
            volumeNode: the volume, or a list with one for each channel of the model.
            model: "id" of a bundled or installed package, or "id@version".
            roiNode: a box of the Markups module; nothing is found outside of it.
            outputNode: where to; by default the model's earlier output if nobody edited it, or a
                new node.
            options: forceScope, threads, engine, naming, cleanUp, confidenceMap; see `Call`.
            onProgress: told a `Progress` (fraction, sentence, secondsLeft).
            cancelled: asked often; if true, `Cancelled` is raised.

        Raises:
            DistillSegError: what stands in the way, in one sentence.
        """
        call = Call(asTuple(volumeNode), model, roiNode, outputNode, **options)
        request = self.prepare(call)
        segmentation = runAndWait(
            request.run,
            onProgress=onProgress,
            cancelled=cancelled,
            expectedSeconds=request.expected.seconds,
        )
        return self.finish(request, segmentation)

    def segmentInBackground(self, call, *, onDone, onError, onCancelled=None, onProgress=None):
        """The same beside the event loop; returns at once.

        Closing the scene or deleting the volume, region or output cancels.

        Args:
            onDone: called with the segmentation node.
            onError, onCancelled, onProgress: as `Jobs.start` calls them.

        Raises:
            DistillSegError: what stands in the way before it begins.
        """
        request = self.prepare(call)
        self.jobs.start(
            request.run,
            onProgress=onProgress,
            onDone=lambda segmentation: onDone(self.finish(request, segmentation)),
            onError=onError,
            onCancelled=onCancelled,
            stillWanted=request.isWanted,
            expectedSeconds=request.expected.seconds,
        )
        return request

    def prepare(self, call):
        """Check a call and copy its voxels; asks for the engine where it is absent."""
        package = packageOf(call.model)
        checkChannels(package, call.volumes)
        for node in call.volumes:
            checkVolume(node)
        if call.output is not None:
            Outputs.checkOutput(call.output, call.volumes[0])
        region = regionFromRoi(call.roi) if call.roi is not None else None
        size = sizeOf(call.volumes[0], region)
        if not call.forceScope:
            checkScope(package, size)
        self._install()
        images = tuple(imageFromVolume(node) for node in call.volumes)
        expected = estimateFor(package, size, call.engine)
        return Request(call, package, images, region, expected, size, self._segmenters)

    def prepareBatch(self, call):
        """The package of a call, and what gives its loaded model to a worker; for many images.

        Asks for the engine where it is absent. The model stays loaded, as that of a single run.
        """
        package = packageOf(call.model)
        self._install()
        return package, lambda: self._segmenters.of(package, call)

    def finish(self, request, segmentation):
        """Put what was found into the scene; `Cancelled` if its volume is not there any more."""
        if not request.isWanted():
            raise Cancelled(
                _("The volume was removed while it was segmented; nothing was written.")
            )
        Outputs.removeOrphans()
        node = Outputs.put(
            segmentation, request.call.volumes[0], request.model, request.call.output
        )
        if segmentation.confidence_map is not None:
            ConfidenceMap.show(segmentation.confidence_map, request.call.volumes[0], node)
        self.lastCall, self.lastSegmentation = request.call, segmentation
        return node

    def estimate(self, volumeNode, model, roiNode=None, engine="auto"):
        """Seconds and memory that a run will take; fast, without copying voxels."""
        checkVolume(volumeNode)
        region = regionFromRoi(roiNode) if roiNode is not None else None
        return estimateFor(packageOf(model), sizeOf(volumeNode, region), engine)

    def compare(self, a, b, toleranceMm=1.0):
        """Two segmentation nodes, structure by structure, as plain dictionaries.

        Returns:
            {"a", "b", "tolerance_mm", "notes", "rows"}; a row has "structure", "dice", "hd95_mm",
            "nsd" (surface Dice), "volume_a_ml", "volume_b_ml", "worst_slice" and more, None where
            nothing can be measured ("remark" says why).
        """
        return self.comparison(a, b, toleranceMm).to_dict()

    def comparison(self, a, b, toleranceMm=1.0) -> Comparison:
        """The same as the library's object."""
        copies = segmentationFromNode(a), segmentationFromNode(b)
        return compare(*copies, tolerance_mm=toleranceMm, rest="overlap")

    def compareInBackground(
        self,
        a,
        b,
        toleranceMm=1.0,
        *,
        onDone,
        onError,
        onCancelled=None,
        onProgress=None,
        pairs=None,
    ):
        """`comparison` beside the event loop; the nodes are copied before it returns.

        Closing the scene or deleting one of both cancels.

        Args:
            onDone: called with the library's `Comparison`.
            pairs: numbers of A's and B's segments to compare, counted from 1, None where one lacks
                the structure; by default they are matched by terminology, name and overlap.
        """
        copies = segmentationFromNode(a), segmentationFromNode(b)

        def task(report, cancelled):
            report(0.0, lambda: _("Comparing …"))
            return compare(
                *copies,
                tolerance_mm=toleranceMm,
                rest="overlap",
                pairs=pairs,
                on_progress=lambda share: report(share, lambda: _("Comparing …")),
                cancelled=cancelled,
            )

        self.jobs.start(
            task,
            onProgress=onProgress,
            onDone=onDone,
            onError=onError,
            onCancelled=onCancelled,
            stillWanted=lambda: all(node.GetScene() is slicer.mrmlScene for node in (a, b)),
        )

    def copyPython(self, call=None):
        """The text that makes the same call in the Python console; of the last one by default."""
        call = call or self.lastCall
        return pythonOf(call) if call is not None else ""

    def forget(self):
        """Let go of the last call and result: their nodes leave the scene, and memory with it."""
        self.lastCall = self.lastSegmentation = None

    def close(self):
        """Stop what runs and let go of the model: for reloading and quitting."""
        self.jobs.close()
        self._segmenters.clear()
