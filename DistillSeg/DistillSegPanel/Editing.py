"""The section Edit: correct a result in the Segment Editor, accept it, keep it to train with."""

import ctk
import slicer
from slicer.i18n import tr as _

from DistillSegLib.errors import DistillSegError
from DistillSegPanel import Outputs
from DistillSegPanel.Corrections import correctionTask, sentenceOf
from DistillSegPanel.EditorWidget import EditorWidget
from DistillSegPanel.Folders import CORRECTIONS, checkFolder, openFolder, remember, remembered
from DistillSegPanel.Nodes import NodeError


class Editing:
    """Embeds the Segment Editor; it is made when the section is first opened.

    Attributes:
        editor: the `EditorWidget`, None before.
    """

    def __init__(self, panel, parent):
        self.panel = panel
        self.editor = None
        self._parent, self._entered = parent, False
        self.ui = panel.loadUi("Editing", parent)
        self.ui.correctionFolder.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.correctionFolder.currentPath = remembered(CORRECTIONS)
        self._connect(parent)
        panel.onSegmented.append(self.onSegmented)

    def _connect(self, parent):
        ui = self.ui
        ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onSegmentation)
        ui.resetButton.connect("clicked(bool)", self.onReset)
        ui.acceptButton.connect("clicked(bool)", self.onAccept)
        ui.saveButton.connect("clicked(bool)", self.onSave)
        parent.connect("contentsCollapsed(bool)", self.onCollapsed)

    # What the panel calls

    def enter(self):
        self._entered = True
        self._follow()

    def exit(self):
        self._entered = False
        self._follow()

    def cleanup(self):
        self._entered = False
        self._parent.disconnect("contentsCollapsed(bool)", self.onCollapsed)
        if self.editor is not None:
            self.editor.cleanup()
            self.editor = None

    def sceneClosing(self):
        """Put the tool down before its nodes go."""
        if self.editor is not None:
            self.editor.deactivate()
            self.editor.show(None, None)

    def update(self):
        """Show what is chosen, and what can be done with it."""
        node = self.panel.parameters.reviewed
        self.ui.segmentationSelector.setCurrentNode(node)
        reason = self._problem(node)
        isOurs = not reason and Outputs.rawOf(node) is not None
        busy = _("Another task is running; wait for it.") if self.panel.busy else ""
        notOurs = _("No model made this segmentation; there is no output to go back to.")
        _show(self.ui.resetButton, reason or ("" if isOurs else notOurs), _resetTip())
        _show(
            self.ui.acceptButton, reason, _("Marks the structure as completed, selects the next.")
        )
        _show(self.ui.saveButton, reason or busy or ("" if isOurs else notOurs), _saveTip())
        self._follow()

    # What others call

    def edit(self, segmentationNode, segmentId=""):
        """Open the section on a segmentation, and on one of its structures."""
        self.panel.parameters.reviewed = segmentationNode
        self._parent.collapsed = False
        self._follow()
        if segmentId:
            self.editor.select(segmentId)

    def saveForUndo(self, segmentationNode):
        """Make the next change of a segmentation one that Undo takes back, if it is edited here."""
        if self.editor is not None and self.editor.widget.segmentationNode() is segmentationNode:
            self.editor.saveForUndo()

    @property
    def isListening(self):
        """Whether the editor's keys are on: digits and Space choose its tools."""
        return self.editor is not None and self.editor.isActive

    # What users do

    def onSegmented(self, segmentationNode):
        """A new result is the one to review."""
        if self.panel.parameters is not None:
            self.panel.parameters.reviewed = segmentationNode

    def onSegmentation(self, node):
        if self.panel.parameters is not None and not self.panel.updating:
            self.panel.parameters.reviewed = node

    def onCollapsed(self, _collapsed):
        self._follow()
        self.panel.changedSoon()  # others' keys come and go with the editor's

    def onReset(self, _checked=False):
        """Take the selected structure back to what the model said."""
        node = self.panel.parameters.reviewed
        try:
            identifier, segment = self.editor.segment()
            if identifier not in Outputs.ownSegments(Outputs.rawOf(node)):
                text = _("'{structure}' is yours, not the model's; there is nothing to go back to.")
                raise NodeError(text.format(structure=segment.GetName()))
            self.editor.saveForUndo()
            Outputs.reset(node, [identifier])
        except DistillSegError as problem:
            self.panel.say(str(problem), "error")
            return
        _setStatus(segment, "NotStarted")
        self.panel.say(
            _("'{structure}' is as the model gave it; Undo brings your version back.").format(
                structure=segment.GetName()
            )
        )

    def onAccept(self, _checked=False):
        """Mark the selected structure as completed, and go on to the next that is not."""
        segmentation = self.panel.parameters.reviewed.GetSegmentation()
        try:
            _identifier, segment = self.editor.segment()
        except DistillSegError as problem:
            self.panel.say(str(problem), "error")
            return
        _setStatus(segment, "Completed")
        ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
        waiting = [i for i in ids if not _isCompleted(segmentation.GetSegment(i))]
        if waiting:
            self.editor.select(waiting[0])
            text = _("'{structure}' is accepted; {count} to go.").format(
                structure=segment.GetName(), count=len(waiting)
            )
        else:
            text = _("All {count} structures are accepted.").format(count=len(ids))
        self.panel.say(text)

    def onSave(self, _checked=False):
        """Keep image and corrected mask as a pair to train with."""
        panel, folder = self.panel, self.ui.correctionFolder.currentPath.strip()
        node = panel.parameters.reviewed
        try:
            panel.checkFree()
            checkFolder(folder)
            task = correctionTask(node, folder, panel)
        except DistillSegError as problem:
            panel.say(str(problem), "error")
            return
        remember(CORRECTIONS, folder)
        panel.work.jobs.start(
            task,
            onDone=lambda correction: self._saved(correction, folder),
            onError=self._failed,
            onCancelled=panel.changed,
        )
        panel.say(_("Saving the correction …"))
        panel.changed()

    def _saved(self, correction, folder):
        self.panel.say(
            sentenceOf(correction), "info", "", _("Open the folder"), lambda: openFolder(folder)
        )
        self.panel.changed()

    def _failed(self, problem):
        self.panel.say(str(problem), "error")
        self.panel.changed()

    def _follow(self):
        """Let the editor show what is reviewed, and listen only while it is seen."""
        parameters = self.panel.parameters
        isOpen = self._entered and not self._parent.collapsed and parameters is not None
        node = parameters.reviewed if isOpen else None
        if node is not None and self.editor is None:
            self.editor = EditorWidget()
            self.ui.editorLayout.addWidget(self.editor.widget)
        if self.editor is None:
            return
        self.editor.widget.setVisible(node is not None)
        if node is None:
            self.editor.deactivate()
            return
        self.editor.show(node, Outputs.volumeOf(node))
        self.editor.activate()

    @staticmethod
    def _problem(node):
        if node is None:
            return _("Segment a volume, or choose a segmentation.")
        if Outputs.volumeOf(node) is None:
            return _("The image of this segmentation is not in the scene.")
        return ""


def _show(button, reason, toolTip):
    button.enabled = not reason
    button.toolTip = reason or toolTip


def _resetTip():
    return _("Takes the selected structure back to what the model gave.")


def _saveTip():
    return _("Keeps image and corrected mask to train with; file names hold no patient's name.")


def _setStatus(segment, name):
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    logic.SetSegmentStatus(segment, getattr(logic, name))


def _isCompleted(segment):
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    return logic.GetSegmentStatus(segment) == logic.Completed
