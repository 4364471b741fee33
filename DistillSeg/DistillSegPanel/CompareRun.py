"""The work of a comparison beside the event loop: run the reference model, compare two nodes."""

import logging
import traceback

from slicer.i18n import tr as _

from DistillSegLib.errors import DistillSegError
from DistillSegPanel.Remedies import remedyOf

log = logging.getLogger(__name__)


class CompareRun:
    """Starts and cancels; one thing at a time.

    Args:
        onCompared: called with the library's `Comparison`, A, B and their segments' IDs.
        onChange: called when it starts or ends; onProgress: with a `Progress`.

    Attributes:
        isActive: whether it, and not another section, is working.
    """

    def __init__(self, panel, onCompared, onChange, onProgress):
        self.panel = panel
        self.isActive = False
        self._onCompared, self._onChange, self._onProgress = onCompared, onChange, onProgress

    def compare(self, a, b, pairs=None):
        """Compare two segmentation nodes; False where something stands in the way."""
        if a is b and a is not None:
            self._fail(DistillSegError(_("A and B are the same; choose two segmentations.")))
            return False
        ids = tuple(_segmentIds(node) for node in (a, b))
        return self._start(
            lambda calls: self.panel.work.compareInBackground(
                a,
                b,
                self.panel.parameters.toleranceMm,
                pairs=pairs,
                onDone=lambda comparison: self._end(self._onCompared, comparison, a, b, ids),
                **calls,
            )
        )

    def segment(self, call, onDone):
        """Run a model, then call `onDone` with the segmentation node."""
        return self._start(
            lambda calls: self.panel.work.segmentInBackground(
                call, onDone=lambda node: self._end(onDone, node), **calls
            )
        )

    def cancel(self):
        """Stop; the end follows within half a second."""
        if self.isActive:
            self.panel.work.jobs.cancel()

    def _start(self, start):
        if self.panel.busy:
            return False
        calls = {
            "onError": self._fail,
            "onCancelled": self._onCancelled,
            "onProgress": self._onProgress,
        }
        try:
            start(calls)
        except DistillSegError as problem:
            self._fail(problem)
            return False
        self.isActive = True
        self._onChange()
        return True

    def _end(self, callback, *results):
        self.isActive = False
        if self.panel.parameters is not None:
            callback(*results)
        self._onChange()

    def _fail(self, problem):
        self.isActive = False
        if self.panel.parameters is not None:
            self.panel.parameters.comparing = False
        if isinstance(problem, DistillSegError):
            text, remedy = remedyOf(problem, self.panel)
            self.panel.say(str(problem), "error", "", text, remedy)
        else:
            log.error("A comparison failed.", exc_info=problem)
            lines = traceback.format_exception(type(problem), problem, problem.__traceback__)
            sentence = _("The comparison failed ({kind}); copy the report and send it.")
            self.panel.say(sentence.format(kind=type(problem).__name__), "error", "".join(lines))
        self._onChange()

    def _onCancelled(self):
        self.isActive = False
        if self.panel.parameters is not None:
            self.panel.parameters.comparing = False
        self.panel.say(_("Cancelled; nothing was compared."))
        self._onChange()


def _segmentIds(node):
    segmentation = node.GetSegmentation() if node is not None else None
    count = segmentation.GetNumberOfSegments() if segmentation is not None else 0
    return [segmentation.GetNthSegmentID(number) for number in range(count)]
