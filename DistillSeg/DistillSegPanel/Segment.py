"""The section Segment: what goes in, where the result goes, and the one button."""

import qt
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from DistillSegLib.errors import DistillSegError
from DistillSegPanel import Outputs, Preflight
from DistillSegPanel.Advanced import Advanced
from DistillSegPanel.Calls import sizeText
from DistillSegPanel.Inputs import Inputs
from DistillSegPanel.ModelTexts import numberText
from DistillSegPanel.Nodes import checkVolume
from DistillSegPanel.RegionRow import RegionRow
from DistillSegPanel.Remedies import remedyOf
from DistillSegPanel.Run import Run
from DistillSegPanel.State import State, lookOf


class Segment(VTKObservationMixin):
    """Shows and changes the choices of a run, and starts and stops it.

    Attributes:
        run: the run and its state; inputs: the rows of volumes.
    """

    def __init__(self, panel, parent):
        VTKObservationMixin.__init__(self)
        self.panel = panel
        self.ui = panel.loadUi("Segment", parent)
        self.run = Run(panel, panel.changed, self.onProgress)
        self.inputs = Inputs(panel, self.ui)
        self.region = RegionRow(panel, self.ui)
        self._followed = set()  # nodes that are observed
        self._choices = None  # that were made last
        self._told = None  # what the status sentence is about
        self.advanced = Advanced(panel, self.ui)
        self._connect(parent)

    def _connect(self, parent):
        ui = self.ui
        ui.outputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onOutput)
        ui.segmentButton.connect("clicked(bool)", self.onSegmentButton)
        ui.show3DButton.connect("clicked(bool)", self.onShow3D)
        self._shortcut = qt.QShortcut(qt.QKeySequence("Ctrl+Return"), parent)
        self._shortcut.connect("activated()", self.onShortcut)

    def enter(self):
        """The module is shown."""
        self._shortcut.setEnabled(True)
        self.inputs.chooseDefaults()

    def exit(self):
        """Another module is shown."""
        self._shortcut.setEnabled(False)

    def cleanup(self):
        """Leave no observer."""
        self.removeObservers()
        self._followed = set()
        self._shortcut.setEnabled(False)
        self.ui.show3DButton.setSegmentationNode(None)

    def sceneClosing(self):
        """Let go of the nodes, and so of their voxels."""
        self.removeObservers()
        self._followed = set()
        self._choices = self._told = None
        self.inputs.sequence = None

    def sceneChanged(self):
        """Nodes came or went."""
        self.inputs.forgetRemoved()
        self.inputs.chooseDefaults()

    def update(self):
        """Show choices, state and what stands in the way."""
        parameters, ui = self.panel.parameters, self.ui
        self._forgetConsent(parameters)
        problem = self.problem()
        look = lookOf(self.run.state, str(problem or ""), self.panel.busy)
        self.inputs.update(parameters, look.choices)
        self.region.update(parameters, look.choices)
        ui.outputSelector.setCurrentNode(parameters.outputSegmentation)
        ui.outputSelector.enabled = look.choices
        ui.show3DButton.setSegmentationNode(parameters.outputSegmentation)
        self.advanced.update(parameters, look.choices)
        ui.segmentButton.text = look.button
        ui.segmentButton.enabled = look.isEnabled
        ui.segmentButton.toolTip = look.toolTip
        ui.progressBar.setVisible(look.progress)
        expected = Preflight.estimateOf(parameters, self.panel.modelList)
        ui.estimateLabel.text = estimateText(expected)
        self._follow(parameters)
        self._tell(parameters, problem)

    def problem(self):
        """What stands in the way of segmenting, or None."""
        if self.inputs.sequence is None:
            return Preflight.problemOf(self.panel.parameters, self.panel.modelList)
        try:
            checkVolume(self.inputs.sequence)
        except DistillSegError as problem:
            return problem
        return None

    def releaseOutput(self):
        """Let go of an output of another volume or model, so that it is not written to."""
        parameters = self.panel.parameters
        output = parameters.outputSegmentation
        ofModel = Outputs.modelOf(output)
        if ofModel and (
            ofModel != parameters.model or Outputs.volumeOf(output) is not parameters.inputVolume
        ):
            parameters.outputSegmentation = None

    def onSegmentButton(self, _checked=False):
        """The one button: segment, or cancel."""
        if self.run.state is State.RUNNING:
            self.run.cancel()
        elif not self.panel.busy:
            self.panel.changed()  # what was learned since the last look, such as a modality
            if self.ui.segmentButton.enabled:
                self.run.start()

    def onShortcut(self):
        """Ctrl+Return."""
        if self.ui.segmentButton.enabled:
            self.ui.segmentButton.click()

    def onOutput(self, node):
        """Another output was chosen."""
        if self._isChoice():
            self.panel.parameters.outputSegmentation = node

    def onShow3D(self, isShown):
        """Whether the next result is shown in 3D too."""
        if self._isChoice() and self.panel.parameters.outputSegmentation is not None:
            self.panel.parameters.show3D = isShown

    def onAnyway(self):
        """Segment in spite of what the panel warns of, until something else is chosen."""
        self.panel.parameters.forceScope = True
        self.onSegmentButton()

    def onProgress(self, progress):
        """Called 20 times a second while it runs."""
        self.ui.progressBar.value = int(1000 * progress.fraction)
        self.ui.progressBar.setFormat(progressText(progress))
        if self.run.state is State.RUNNING and progress.sentence != self.panel.said:
            self.panel.say(progress.sentence)

    def _isChoice(self):
        """Whether a signal comes from the user and not from `update`."""
        return self.panel.parameters is not None and not self.panel.updating

    def _follow(self, parameters):
        """Look again when a chosen volume or box is changed elsewhere, as when it is dragged."""
        wanted = {n for n in (*Preflight.inputsOf(parameters), parameters.roi) if n is not None}
        for node in self._followed - wanted:
            self.removeObserver(node, vtk.vtkCommand.ModifiedEvent, self.panel.changedSoon)
        for node in wanted - self._followed:
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self.panel.changedSoon)
        self._followed = wanted

    def _forgetConsent(self, parameters):
        """What was segmented anyway says nothing about another model, volume or region."""
        choices = (parameters.model, Preflight.inputsOf(parameters), parameters.regionKind)
        if choices != self._choices and not self.run.machine.isActive:
            self._choices = choices
            parameters.forceScope = False

    def _tell(self, parameters, problem):
        """Say what stands in the way, when the choices or the problem changed."""
        if self.run.machine.isActive:
            return
        warnings = []
        if problem is None and not parameters.forceScope:
            warnings = Preflight.warningsOf(parameters, self.panel.modelList)
        said = str(problem or "\n".join(warnings))
        now = (self._choices, parameters.roi, said)
        if now == self._told:
            return
        self._told = now
        if self.run.state is State.FAILED:  # of choices that are not made any more
            self.run.machine.to(State.IDLE)
        if problem is None:
            self.panel.say("\n".join(warnings[:1]), "warning", "\n".join(warnings[1:]))
            return
        isWaiting = parameters.inputVolume is None and self.inputs.sequence is None
        text, remedy = remedyOf(problem, self.panel)
        other = {}
        if getattr(problem, "canGoOn", False):
            other = {"otherText": _("Segment anyway"), "other": self.onAnyway}
        kind = "info" if isWaiting else "warning"
        self.panel.say(str(problem), kind, "", text, remedy, **other)


def estimateText(expected):
    """Such as "≈ 0.4 s, 0.1 GB on this computer"."""
    if expected is None:
        return "–"
    text = _("≈ {seconds} s, {memory}").format(
        seconds=numberText(expected.seconds), memory=sizeText(expected.memory_bytes)
    )
    text += " " + (_("on this computer") if expected.measured else _("(not measured here yet)"))
    if not expected.fits:
        text += ". " + _("Only {free} are free; choose a smaller region.").format(
            free=sizeText(expected.free_bytes)
        )
    return text


def progressText(progress):
    """Such as "42 % · 3 s left"."""
    text = _("{percent} %").format(percent=int(100 * progress.fraction))
    if progress.secondsLeft is None:
        return text
    return _("{share} · {seconds:.0f} s left").format(
        share=text, seconds=max(1, progress.secondsLeft)
    )
