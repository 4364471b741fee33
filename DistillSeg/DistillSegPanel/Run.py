"""One run of a model from the click to the result in the scene, and its state."""

import logging
import math
import time
import traceback

from slicer.i18n import tr as _

from DistillSegLib.errors import DistillSegError
from DistillSegPanel import ConfidenceMap, Outputs, Preflight
from DistillSegPanel.Install import InstallError
from DistillSegPanel.Remedies import remedyOf
from DistillSegPanel.Segments import isEmpty
from DistillSegPanel.State import Machine, State
from DistillSegPanel.Views import centerViews

MOST_SURFACES = 20  # structures that are shown in 3D without being asked

log = logging.getLogger(__name__)


class Run:
    """Starts, cancels and ends runs for the section Segment.

    Args:
        onChange: called when the state changed; onProgress: with a `Progress`.
    """

    def __init__(self, panel, onChange, onProgress):
        self.panel = panel
        self.machine = Machine()
        self.seconds = 0.0  # of the last run, from click to result
        self._onChange, self._onProgress = onChange, onProgress
        self._request = None
        self._started = 0.0

    @property
    def state(self):
        """Idle, running, cancelling or failed."""
        return self.machine.state

    def start(self):
        """Segment what is chosen; returns at once."""
        panel = self.panel
        self._started = time.perf_counter()
        try:
            package = Preflight.packageOf(panel.parameters, panel.modelList)
            call = Preflight.callFrom(panel.parameters, package)
            self._checkEdits(call)
            self._request = panel.work.segmentInBackground(
                call,
                onDone=self._onDone,
                onError=self.fail,
                onCancelled=self._onCancelled,
                onProgress=self._onProgress,
            )
        except DistillSegError as problem:
            self.fail(problem)
            return
        self.machine.to(State.RUNNING)
        self._onChange()

    def cancel(self):
        """Stop; `_onCancelled` follows within half a second."""
        self.machine.to(State.CANCELLING)
        self.panel.work.jobs.cancel()
        self.panel.say(_("Cancelling …"))
        self._onChange()

    def fail(self, problem):
        """Say what went wrong, and offer what helps."""
        self.machine.to(State.FAILED)
        self._request = None
        text, remedy = remedyOf(problem, self.panel)
        if isinstance(problem, InstallError):
            details = _("For an administrator: {command}").format(command=problem.command)
            self.panel.say(str(problem), "error", details, text, remedy)
        elif isinstance(problem, DistillSegError):
            self.panel.say(str(problem), "error", "", text, remedy)
        else:
            log.error("A run failed.", exc_info=problem)
            lines = traceback.format_exception(type(problem), problem, problem.__traceback__)
            self.panel.say(unexpected(problem), "error", "".join(lines))
        self._onChange()

    def _onDone(self, segmentationNode):
        panel, found = self.panel, self.panel.work.lastSegmentation
        self._request = None
        self.machine.to(State.IDLE)
        if panel.parameters is not None:
            isNew = panel.parameters.outputSegmentation is not segmentationNode
            panel.parameters.outputSegmentation = segmentationNode
            panel.segment.releaseOutput()  # if another volume or model was chosen meanwhile
            if panel.parameters.show3D:
                showSurfaces(segmentationNode)
            if isNew:
                showWhere(segmentationNode)
        self.seconds = time.perf_counter() - self._started
        self._tell(segmentationNode, found)
        for callback in list(panel.onSegmented):
            callback(segmentationNode)
        self._onChange()

    def _tell(self, segmentationNode, found):
        sentence = _("'{name}' is ready after {seconds:.1f} s.").format(
            name=segmentationNode.GetName(), seconds=self.seconds
        )
        if found is not None and found.confidence_map is not None:
            name = ConfidenceMap.mapOf(segmentationNode).GetName()
            sentence += " " + _("Its map is the volume '{name}'.").format(name=name)
        if found is not None and found.warnings:
            details = "\n".join(found.warnings[1:])
            self.panel.say(f"{sentence} {found.warnings[0]}", "warning", details)
        else:
            self.panel.say(sentence)

    def _onCancelled(self):
        request, self._request = self._request, None
        self.machine.to(State.IDLE)
        if request is not None and not request.isWanted():
            self.panel.say(
                _("The volume, region or output was removed; nothing was written."), "warning"
            )
        else:
            self.panel.say(_("Cancelled; nothing was written."))
        self._onChange()

    @staticmethod
    def _checkEdits(call):
        """Refuse to replace what somebody corrected by hand."""
        output = call.output
        if output is not None and Outputs.rawOf(output) and Outputs.editedSegments(output):
            raise DistillSegError(
                _(
                    "'{name}' was edited by hand, and segmenting into it would replace that; "
                    "choose 'Create new on Segment' as output."
                ).format(name=output.GetName())
            )


def showSurfaces(segmentationNode):
    """Show a result in 3D unless it has so many structures that this would take long."""
    count = segmentationNode.GetSegmentation().GetNumberOfSegments()
    if count <= MOST_SURFACES and not isEmpty(segmentationNode):
        segmentationNode.CreateClosedSurfaceRepresentation()


def showWhere(segmentationNode):
    """Bring a new result into view; where nothing was found, the views stay where they are."""
    if isEmpty(segmentationNode):
        return
    bounds = [0.0] * 6
    segmentationNode.GetRASBounds(bounds)
    size = [high - low for low, high in zip(bounds[::2], bounds[1::2])]
    center = [(low + high) / 2 for low, high in zip(bounds[::2], bounds[1::2])]
    centerViews(center, math.hypot(*size))


def unexpected(problem):
    """A sentence for what no section foresaw."""
    if isinstance(problem, MemoryError):
        return _("The memory is not enough; close other data, or choose a smaller region.")
    return _(
        "Something unexpected happened ({kind}); copy the report from the menu '⋯' and send it."
    ).format(kind=type(problem).__name__)
