"""The section Live: one switch, and how many volumes per second it reaches."""

import logging

import qt
from slicer.i18n import tr as _

from DistillSegLib.errors import DistillSegError
from DistillSegPanel.LiveRun import LiveRun
from DistillSegPanel.Remedies import INPUTS, remedyOf

TOLD_MS = 500  # between two looks at the rate, so that it is seen to fall as well

log = logging.getLogger(__name__)


class Live:
    """Switches live segmenting on and off; leaving the module switches it off.

    Attributes:
        run: the `LiveRun`.
    """

    def __init__(self, panel, parent):
        self.panel = panel
        self.ui = panel.loadUi("Live", parent)
        self.run = LiveRun(panel, self.onResult, self.onStop)
        self._choices = None
        self._timer = qt.QTimer()
        self._timer.setInterval(TOLD_MS)
        self._timer.connect("timeout()", self._tellRate)
        self.ui.liveBox.connect("toggled(bool)", self.onToggled)
        self._tellRate()

    # What the panel calls

    def enter(self):
        """It begins with a click only."""

    def exit(self):
        self.run.stop()

    def sceneClosing(self):
        self.run.stop()
        self._choices = None

    def cleanup(self):
        self.run.cleanup()
        self._timer.stop()
        self._timer.disconnect("timeout()", self._tellRate)

    def update(self):
        """Follow other choices at once; go on when another task has ended."""
        choices = self._chosen()
        if self.run.isOn and choices != self._choices:
            self._choices = choices
            if self.panel.parameters.inputVolume is None:
                self.run.stop()
                return
            self.run.follow()
        self.run.goOn()

    # What users do

    def onToggled(self, isOn):
        """The switch."""
        if not isOn:
            self.run.stop()
            return
        self._choices = self._chosen()
        try:
            self.run.start()
        except DistillSegError as problem:
            self.onStop(problem)
            return
        self._timer.start()
        self.panel.say(_("Live: the result follows the image."))

    def onResult(self, segmentationNode):
        """A volume was segmented."""
        panel, parameters = self.panel, self.panel.parameters
        if parameters is not None and parameters.outputSegmentation is not segmentationNode:
            parameters.outputSegmentation = segmentationNode
            panel.segment.releaseOutput()  # if another volume or model was chosen meanwhile
            for callback in list(panel.onSegmented):
                callback(segmentationNode)
        self._tellRate()

    def onStop(self, problem):
        """It ended, by the user or because of a problem."""
        self._timer.stop()
        blocked = self.ui.liveBox.blockSignals(True)
        self.ui.liveBox.checked = False
        self.ui.liveBox.blockSignals(blocked)
        self._tellRate()
        if problem is None:
            self.panel.say(_("Live is off; the last result is kept."))
        else:
            if not isinstance(problem, DistillSegError):
                log.error("Live segmenting failed.", exc_info=problem)
            text, remedy = remedyOf(problem, self.panel)
            self.panel.say(str(problem) or repr(problem), "error", "", text, remedy)
        self.panel.changedSoon()

    def _chosen(self):
        parameters = self.panel.parameters
        return (
            parameters.model,
            *(getattr(parameters, name) for name in INPUTS),
            parameters.regionKind,
            parameters.roi,
            parameters.forceScope,
        )

    def _tellRate(self):
        run = self.run
        if not run.isOn and not run.done:
            text = _("For sequences that are played, and for streams from scanners.")
        else:
            text = _("{rate:.1f} volumes/s · {done} segmented · {dropped} skipped").format(
                rate=run.volumesPerSecond(), done=run.done, dropped=run.dropped
            )
        self.ui.rateLabel.text = text
