"""What a segmentation node holds, measured beside the event loop and again after every edit."""

import logging

import qt
import slicer
from slicer.util import VTKObservationMixin

from DistillSegLib.errors import DistillSegError
from DistillSegLib.findings import findings
from DistillSegPanel.Jobs import Jobs
from DistillSegPanel.Segments import segmentationFromNode

QUIET_MS = 400  # without another edit, before it is measured again
EVENTS = ("SourceRepresentationModified", "SegmentAdded", "SegmentRemoved", "SegmentModified")

log = logging.getLogger(__name__)


class Findings(VTKObservationMixin):
    """Follows one segmentation node.

    Its worker is of its own, so that measuring keeps nobody from segmenting.

    Attributes:
        bySegment: segment id -> `Finding`; empty until it is measured.
        problem: why it cannot be measured, in one sentence.
    """

    def __init__(self, onChange, isStack):
        """Start with nothing.

        Args:
            onChange: told when something was measured.
            isStack: (node) -> whether its image is a stack within the organ.
        """
        VTKObservationMixin.__init__(self)
        self._isStack = isStack
        self.bySegment = {}
        self.problem = ""
        self._onChange = onChange
        self._node = None
        self._jobs = Jobs()
        self._again = False
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(QUIET_MS)
        self._timer.connect("timeout()", self.measure)

    @property
    def isCurrent(self):
        """Whether nothing is waiting to be measured."""
        return not (self._jobs.isRunning or self._again or self._timer.isActive())

    def follow(self, segmentationNode):
        """Measure a node now, and whenever it changes; None follows nothing."""
        if segmentationNode is self._node:
            return
        self.removeObservers()
        self._node, self.bySegment, self.problem = segmentationNode, {}, ""
        self._timer.stop()
        self._again = False
        self._jobs.cancel()  # what is measured is not asked for any more
        if segmentationNode is None:
            return
        segmentation = segmentationNode.GetSegmentation()
        for name in EVENTS:
            event = getattr(slicer.vtkSegmentation, name)
            self.addObserver(segmentation, event, self._onEdited)
        self.measure()

    def measure(self):
        """Copy the segments and measure the copy."""
        if self._node is None:
            return
        if self._jobs.isRunning:
            self._again = True
            return
        node, self._again = self._node, False
        try:
            copy = segmentationFromNode(node)
        except DistillSegError as problem:
            self.bySegment, self.problem = {}, str(problem)
            self._onChange()
            return
        segmentation = node.GetSegmentation()
        ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
        stack = self._isStack(node)
        self._jobs.start(
            lambda _report, cancelled: findings(copy, stack=stack, cancelled=cancelled),
            onDone=lambda found: self._onDone(node, dict(zip(ids, found))),
            onError=self._onError,
            onCancelled=self._onCancelled,
        )
        self._jobs.poll()  # what is small is measured at once

    def cleanup(self):
        """Leave no thread, timer or observer."""
        self.follow(None)
        self._jobs.close()
        self._timer.disconnect("timeout()", self.measure)

    def _onEdited(self, _caller, _event):
        self._timer.start()

    def _onDone(self, node, found):
        if node is self._node:
            self.bySegment, self.problem = found, ""
            self._onChange()
        if self._again:
            self.measure()

    def _onCancelled(self):
        if self._again:
            self.measure()

    def _onError(self, problem):
        log.error("The segments could not be measured.", exc_info=problem)
        self.bySegment, self.problem = {}, str(problem)
        self._onChange()
