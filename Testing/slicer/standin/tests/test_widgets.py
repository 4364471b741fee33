"""The stand-in's widgets act on MRML as Slicer's do, and offer nothing that Slicer lacks."""

from __future__ import annotations

import ctk
import facts
import numpy as np
import pytest
import qt
import slicer
from standin import violations
from standin.cpp import CLASSES, NO_FACTS

WIDGETS_OF_UX = (
    "qMRMLNodeComboBox",
    "qMRMLSegmentationShow3DButton",
    "qMRMLSegmentEditorWidget",
    "qMRMLSegmentsTableView",
    "ctkCollapsibleButton",
    "ctkSearchBox",
    "ctkPathLineEdit",
    "ctkCheckableComboBox",
    "ctkFittedTextBrowser",
)


@pytest.fixture
def segmentation(volume):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    bright = (slicer.util.arrayFromVolume(volume) > 60).astype(np.uint8)
    for name in ("first", "second"):
        node.GetSegmentation().AddEmptySegment(name, name, (0.9, 0.6, 0.3))
        slicer.util.updateSegmentBinaryLabelmapFromArray(bright, node, name, volume)
    return node


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_widget_has_nothing_that_slicer_lacks(name):
    cls = CLASSES[name]
    own = set(dir(cls)) - set(dir(qt.QWidget)) - set(dir(qt.QAbstractButton))
    for base in cls.__mro__:  # what Qt's class itself brings
        if base.__module__.startswith(("PySide6", "Shiboken")):
            own -= set(dir(base))
    public = {n for n in own if not n.startswith("_")} - NO_FACTS
    names = facts.members(name).names
    assert public - names == set()


@pytest.mark.parametrize("name", WIDGETS_OF_UX)
def test_every_widget_of_the_panel_is_there(name):
    module = ctk if name.startswith("ctk") else slicer
    assert getattr(module, name)().className() == name


def test_a_method_that_the_stand_in_leaves_out_is_recorded():
    with violations.expected("stand-in-gap") as found:
        slicer.qMRMLSegmentsTableView().moveSelectedSegmentsUp()
    assert "qMRMLSegmentsTableView.moveSelectedSegmentsUp()" in found[0].text


def test_a_node_selector_follows_the_scene(volume):
    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.noneEnabled = True
    box.setMRMLScene(slicer.mrmlScene)
    seen = []
    box.connect("currentNodeChanged(vtkMRMLNode*)", seen.append)
    assert box.currentNode() is None
    box.setCurrentNode(volume)
    slicer.mrmlScene.RemoveNode(volume)
    assert seen == [volume, None]
    assert box.nodeCount() == 0


def test_a_node_selector_without_none_takes_the_first_node(volume):
    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.setMRMLScene(slicer.mrmlScene)
    assert box.currentNode() is volume
    label = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    assert box.nodeCount() == 2  # a label map is a scalar volume
    box.hideChildNodeTypes = ["vtkMRMLLabelMapVolumeNode"]
    assert box.nodeCount() == 1
    box.setCurrentNode(label)
    assert box.currentNode() is volume


def test_attributes_filter_nodes(volume):
    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.addAttribute("vtkMRMLScalarVolumeNode", "DistillSeg", "1")
    box.setMRMLScene(slicer.mrmlScene)
    assert box.nodeCount() == 0
    volume.SetAttribute("DistillSeg", "1")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other")
    assert box.nodeCount() == 1


def test_the_segments_table_lists_selects_and_hides(segmentation):
    table = slicer.qMRMLSegmentsTableView()
    table.setMRMLScene(slicer.mrmlScene)
    table.setSegmentationNode(segmentation)
    assert table.displayedSegmentIDs() == ("first", "second")
    table.setSelectedSegmentIDs(["second"])
    assert table.selectedSegmentIDs() == ("second",)
    table.tableWidget().cellClicked.emit(0, 0)
    assert not segmentation.GetDisplayNode().GetSegmentVisibility("first")
    segmentation.GetSegmentation().RemoveSegment("first")
    assert table.segmentCount == 1


def test_show_3d_makes_and_removes_surfaces(segmentation):
    button = slicer.qMRMLSegmentationShow3DButton()
    button.setSegmentationNode(segmentation)
    assert button.enabled
    assert not button.checked
    button.click()
    assert segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    assert button.checked
    button.click()
    assert not segmentation.GetSegmentation().ContainsRepresentation("Closed surface")


def test_the_segment_editor_undoes_an_edit(segmentation, volume):
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMRMLScene(slicer.mrmlScene)
    editor.maximumNumberOfUndoStates = 10
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.setMRMLSegmentEditorNode(node)
    editor.setSegmentationNode(segmentation)
    editor.setSourceVolumeNode(volume)
    editor.setCurrentSegmentID("first")
    before = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "first", volume).copy()
    editor.saveStateForUndo()
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        np.zeros_like(before), segmentation, "first", volume
    )
    editor.undo()
    after = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "first", volume)
    np.testing.assert_array_equal(after, before)


def test_effects_of_the_segment_editor_need_both_nodes(segmentation, volume):
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMRMLScene(slicer.mrmlScene)
    editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setSegmentationNode(segmentation)
    editor.setActiveEffectByName("Paint")
    assert editor.activeEffect() is None
    editor.setSourceVolumeNode(volume)
    editor.setActiveEffectByName("Paint")
    assert editor.activeEffect().name == "Paint"
    editor.setEffectNameOrder(["Paint", "Erase"])
    editor.unorderedEffectsVisible = False
    texts = [
        b.text
        for b in editor.findChildren("QToolButton")
        if b.text in editor.availableEffectNames()
    ]
    assert texts == ["Paint", "Erase"]


def test_a_collapsible_button_hides_its_contents():
    button = ctk.ctkCollapsibleButton()
    button.text = "Compare"
    layout = qt.QFormLayout(button)
    label = qt.QLabel("inside")
    layout.addRow(label)
    seen = []
    button.connect("contentsCollapsed(bool)", seen.append)
    button.collapsed = True
    assert label.isHidden()
    button.collapsed = False
    assert not label.isHidden()
    assert seen == [True, False]


def test_a_checkable_combo_box_tells_what_is_ticked():
    box = ctk.ctkCheckableComboBox()
    box.addItems(["CT", "MR", "US"])
    seen = []
    box.connect("checkedIndexesChanged()", lambda: seen.append(len(box.checkedIndexes())))
    model = box.checkableModel()
    box.setCheckState(model.index(1, 0), qt.Qt.Checked)
    box.setCheckState(model.index(2, 0), qt.Qt.Checked)
    box.setCheckState(model.index(1, 0), qt.Qt.Unchecked)
    assert [i.row() for i in box.checkedIndexes()] == [2]
    assert seen == [1, 2, 1]


def test_a_fitted_text_browser_shows_the_first_line_first():
    browser = ctk.ctkFittedTextBrowser()
    browser.setCollapsibleText("Left hippocampus.\nDice 0.94, Hausdorff distance 1.2 mm.")
    assert "Dice" not in browser.plainText
    browser.collapsed = False
    assert "Dice 0.94" in browser.plainText
    assert browser.minimumSizeHint.height() > 20


def test_a_path_line_edit_announces_a_path(tmp_path):
    edit = ctk.ctkPathLineEdit()
    seen = []
    edit.connect("currentPathChanged(QString)", seen.append)
    edit.currentPath = str(tmp_path)
    assert seen == [str(tmp_path)]


def test_settings_are_the_application_s_own_and_lie_in_its_folder():
    slicer.app.settings().setValue("DistillSeg/threads", 7)
    slicer.app.settings().sync()
    assert int(qt.QSettings().value("DistillSeg/threads")) == 7
    assert slicer.util.settingsValue("DistillSeg/threads", 0, converter=int) == 7
    assert qt.QSettings().fileName().startswith(slicer.app.temporaryPath)
    slicer.app.settings().remove("DistillSeg/threads")


def test_modules_of_the_application_have_their_logic():
    assert slicer.modules.volumes.logic().IsA("vtkSlicerVolumesLogic")
    assert slicer.util.getModuleLogic("Segmentations").IsA("vtkSlicerSegmentationsModuleLogic")
    with pytest.raises(AttributeError):
        slicer.modules.nosuchmodule  # noqa: B018
