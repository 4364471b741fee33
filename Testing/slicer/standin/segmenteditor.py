"""The Segment Editor as far as it can be: nodes, chosen segment, effects by name, undo.

Undo, redo and the choice of segments are Slicer's own `vtkSlicerSegmentEditorLogic`. The effects
are Qt code that slicer-core lacks, so an active effect has a name and paints nothing.
"""

from __future__ import annotations

import slicer
import vtk

from .binding import QtCore, QtWidgets
from .cpp import cpp, stored
from .nodewidgets import qMRMLNodeComboBox, qMRMLWidget
from .observers import observe
from .segmentwidgets import qMRMLSegmentationShow3DButton, qMRMLSegmentsTableView

EFFECTS = (
    "Threshold",
    "Paint",
    "Draw",
    "Erase",
    "Level tracing",
    "Grow from seeds",
    "Fill between slices",
    "Margin",
    "Hollow",
    "Smoothing",
    "Scissors",
    "Islands",
    "Logical operators",
    "Mask volume",
)
COLUMNS = 4


class Effect:
    """An effect that is only there by name."""

    def __init__(self, name: str, editor):
        self.name, self._editor = name, editor

    def self(self):
        return self


def shown(name, target):
    """A property that shows or hides an inner widget."""

    def apply(self):
        self.__dict__[target].visible = getattr(self, name)

    return stored(bool, name, True, apply)


@cpp
class qMRMLSegmentEditorWidget(qMRMLWidget):
    """Chooses segmentation, source volume, segment and effect."""

    SIGNALS = {
        "currentSegmentIDChanged(QString)": "_s_segmentChanged",
        "segmentationNodeChanged(vtkMRMLSegmentationNode*)": "_s_segmentationChanged",
        "sourceVolumeNodeChanged(vtkMRMLVolumeNode*)": "_s_sourceChanged",
    }
    _s_segmentChanged = QtCore.Signal(str)
    _s_segmentationChanged = QtCore.Signal(object)
    _s_sourceChanged = QtCore.Signal(object)

    def __init__(self, parent=None):
        qMRMLWidget.__init__(self, parent)
        self._s_logic = slicer.vtkSlicerSegmentEditorLogic()
        self._s_editor = None
        self._s_tag = None
        self._s_effect = None
        self._s_shortcuts = False
        self._s_order = ()
        self._s_buttons = {}
        self._s_build()

    def _s_build(self):
        self._s_segmentation = self._s_selector("vtkMRMLSegmentationNode")
        self._s_source = self._s_selector("vtkMRMLScalarVolumeNode")
        self._s_table = qMRMLSegmentsTableView()
        self._s_show3D = qMRMLSegmentationShow3DButton()
        self._s_effects = QtWidgets.QWidget()
        self._s_undo = QtWidgets.QPushButton("Undo")
        self._s_redo = QtWidgets.QPushButton("Redo")
        self._s_grid = QtWidgets.QGridLayout(self._s_effects)
        self._s_grid.setContentsMargins(0, 0, 0, 0)
        history = QtWidgets.QHBoxLayout()
        history.addWidget(self._s_undo)
        history.addWidget(self._s_redo)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self._s_segmentation, self._s_source, self._s_show3D, self._s_table):
            layout.addWidget(part)
        layout.addWidget(self._s_effects)
        layout.addLayout(history)
        self._s_segmentation.currentNodeChanged.connect(self.setSegmentationNode)
        self._s_source.currentNodeChanged.connect(self.setSourceVolumeNode)
        self._s_table.connect(
            "selectionChanged(QItemSelection,QItemSelection)", self._s_segment_selected
        )
        self._s_undo.clicked.connect(lambda: self.undo())
        self._s_redo.clicked.connect(lambda: self.redo())
        self._s_show_effects()

    def _s_selector(self, kind):
        box = qMRMLNodeComboBox()
        box.nodeTypes = (kind,)
        box.noneEnabled = True
        box.addEnabled = False
        return box

    def _s_show_effects(self):
        names = [n for n in self._s_order if n in EFFECTS]
        if self.unorderedEffectsVisible:
            names += [n for n in EFFECTS if n not in names]
        for button in self._s_buttons.values():
            button.delete()
        self._s_buttons = {}
        for index, name in enumerate(["None", *names]):
            button = QtWidgets.QToolButton()
            button.text = name
            button.checkable = True
            button.clicked.connect(lambda _, n=name: self.setActiveEffectByName(n))
            self._s_grid.addWidget(button, index // COLUMNS, index % COLUMNS)
            self._s_buttons[name] = button

    segmentationNodeSelectorVisible = shown("segmentationNodeSelectorVisible", "_s_segmentation")
    sourceVolumeNodeSelectorVisible = shown("sourceVolumeNodeSelectorVisible", "_s_source")
    show3DButtonVisible = shown("show3DButtonVisible", "_s_show3D")
    unorderedEffectsVisible = stored(bool, "unorderedEffectsVisible", True, _s_show_effects)
    undoEnabled = stored(bool, "undoEnabled", True)

    def _s_set_states(self, count):
        self._s_logic.SetMaximumNumberOfUndoStates(count)

    maximumNumberOfUndoStates = QtCore.Property(
        int, lambda self: self._s_logic.GetMaximumNumberOfUndoStates(), _s_set_states
    )

    def setMRMLScene(self, scene):
        for part in (self._s_segmentation, self._s_source):
            part.setMRMLScene(scene)
        self._s_logic.SetMRMLScene(scene)
        self._s_observe(scene)

    def mrmlSegmentEditorNode(self):
        return self._s_editor

    def setMRMLSegmentEditorNode(self, node):
        if self._s_editor is not None and self._s_tag is not None:
            self._s_editor.RemoveObserver(self._s_tag)
        self._s_editor, self._s_tag = node, None
        self._s_logic.SetSegmentEditorNode(node)
        if node is not None:
            event = vtk.vtkCommand.ModifiedEvent
            self._s_tag = observe(self, node, event, self.updateWidgetFromMRML)
        self.updateWidgetFromMRML()

    def updateWidgetFromMRML(self):
        self._s_segmentation.setCurrentNode(self.segmentationNode())
        self._s_source.setCurrentNode(self.sourceVolumeNode())
        if self._s_table.segmentationNode() is not self.segmentationNode():
            self._s_table.setSegmentationNode(self.segmentationNode())
            self._s_show3D.setSegmentationNode(self.segmentationNode())
        self._s_undo.enabled = self.undoEnabled and self._s_logic.CanUndo()
        self._s_redo.enabled = self.undoEnabled and self._s_logic.CanRedo()
        for name, button in self._s_buttons.items():
            button.checked = name == (self._s_effect.name if self._s_effect else "None")

    def _s_needs_node(self):
        if self._s_editor is None:
            raise RuntimeError("setMRMLSegmentEditorNode() was not called")
        return self._s_editor

    def segmentationNode(self):
        return self._s_editor.GetSegmentationNode() if self._s_editor else None

    def setSegmentationNode(self, node):
        if node is self.segmentationNode():
            return
        self._s_needs_node()
        self._s_logic.SetSegmentationNode(node)
        self.updateWidgetFromMRML()
        self._s_segmentationChanged.emit(node)

    def sourceVolumeNode(self):
        return self._s_editor.GetSourceVolumeNode() if self._s_editor else None

    def setSourceVolumeNode(self, node):
        if node is self.sourceVolumeNode():
            return
        self._s_needs_node()
        self._s_logic.SetSourceVolumeNode(node)
        self.updateWidgetFromMRML()
        self._s_sourceChanged.emit(node)

    def currentSegmentID(self):
        return (self._s_editor.GetSelectedSegmentID() or "") if self._s_editor else ""

    def setCurrentSegmentID(self, segment_id):
        if segment_id != self.currentSegmentID():
            self._s_needs_node().SetSelectedSegmentID(segment_id)
            self._s_table.setSelectedSegmentIDs([segment_id])
            self._s_segmentChanged.emit(segment_id)

    def _s_segment_selected(self, *_):
        chosen = self._s_table.selectedSegmentIDs()
        if chosen and self._s_editor:
            self.setCurrentSegmentID(chosen[0])

    def availableEffectNames(self):
        return EFFECTS

    def effectNameOrder(self):
        return tuple(self._s_order)

    def setEffectNameOrder(self, names):
        self._s_order = tuple(names)
        self._s_show_effects()

    def effectByName(self, name):
        return Effect(name, self) if name in EFFECTS else None

    def activeEffect(self):
        return self._s_effect

    def setActiveEffectByName(self, name):
        self.setActiveEffect(self.effectByName(name))

    def setActiveEffect(self, effect):
        if effect is not None and (self.segmentationNode() is None or not self.sourceVolumeNode()):
            effect = None  # real effects stay off without both
        self._s_effect = effect
        if self._s_editor:
            self._s_editor.SetActiveEffectName(effect.name if effect else "")
        self.updateWidgetFromMRML()

    def saveStateForUndo(self):
        self._s_logic.SaveStateForUndo()
        self.updateWidgetFromMRML()

    def undo(self):
        self._s_logic.Undo()
        self.updateWidgetFromMRML()

    def redo(self):
        self._s_logic.Redo()
        self.updateWidgetFromMRML()

    def installKeyboardShortcuts(self, parent=None):
        self._s_shortcuts = True

    def uninstallKeyboardShortcuts(self):
        self._s_shortcuts = False

    def setupViewObservations(self):
        """Effects observe nothing."""

    def removeViewObservations(self):
        """Effects observe nothing."""
