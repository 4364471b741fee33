"""Slicer's Segment Editor inside the panel: what it shows, and when it listens.

Its effects listen to all views and its shortcuts to all keys, so both are on only while the section
is seen.
"""

import slicer
from slicer.i18n import tr as _

from DistillSegPanel.Nodes import NodeError

TAG = "DistillSeg"  # our own editor node: the Segment Editor module keeps its choices
UNDO_STEPS = 10
EFFECTS = ("Paint", "Erase", "Scissors", "Islands", "Smoothing", "Fill between slices")


class EditorWidget:
    """A `qMRMLSegmentEditorWidget` that edits one segmentation on its image.

    Attributes:
        widget: to be put into a layout.
        isActive: whether it listens.
    """

    def __init__(self):
        widget = slicer.qMRMLSegmentEditorWidget()
        widget.setMRMLScene(slicer.mrmlScene)
        widget.segmentationNodeSelectorVisible = False
        widget.sourceVolumeNodeSelectorVisible = False
        widget.switchToSegmentationsButtonVisible = False
        widget.show3DButtonVisible = False  # the section Segment has it
        widget.maximumNumberOfUndoStates = UNDO_STEPS
        widget.unorderedEffectsVisible = False
        widget.setEffectNameOrder(EFFECTS)
        self.widget = widget
        self.isActive = False

    def show(self, segmentationNode, volumeNode):
        """Edit a segmentation on an image; None for nothing."""
        widget = self.widget
        known = widget.mrmlSegmentEditorNode()
        if known is None or known.GetScene() is not slicer.mrmlScene:
            widget.setMRMLSegmentEditorNode(editorNode())
        if widget.segmentationNode() is not segmentationNode:
            widget.setActiveEffect(None)
            widget.setSegmentationNode(segmentationNode)
        if segmentationNode is not None and widget.sourceVolumeNode() is not volumeNode:
            widget.setSourceVolumeNode(volumeNode)

    def activate(self):
        """Listen to views and keys."""
        if not self.isActive:
            self.isActive = True
            self.widget.setupViewObservations()
            self.widget.installKeyboardShortcuts()
            self.widget.updateWidgetFromMRML()

    def deactivate(self):
        """Put the tool down and listen to nothing."""
        if self.isActive:
            self.isActive = False
            self.widget.setActiveEffect(None)
            self.widget.uninstallKeyboardShortcuts()
            self.widget.removeViewObservations()

    def cleanup(self):
        """Let go of the scene."""
        self.deactivate()
        self.widget.setMRMLSegmentEditorNode(None)

    def segment(self):
        """Id and segment that are selected; NodeError if none is."""
        node, identifier = self.widget.segmentationNode(), self.widget.currentSegmentID()
        segment = node.GetSegmentation().GetSegment(identifier) if node and identifier else None
        if segment is None:
            raise NodeError(_("No structure is selected; click one in the table."))
        return identifier, segment

    def select(self, segmentId):
        """Select a segment by its id."""
        self.widget.setCurrentSegmentID(segmentId)

    def saveForUndo(self):
        """Make the next change one that Undo takes back."""
        self.widget.saveStateForUndo()


def editorNode():
    """The node with the editor's choices; it is one for all, and outlives the closing of scenes."""
    node = slicer.mrmlScene.GetSingletonNode(TAG, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
        node.UnRegister(None)
        node.SetSingletonTag(TAG)
        node = slicer.mrmlScene.AddNode(node)
    return node
