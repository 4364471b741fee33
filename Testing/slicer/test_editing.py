"""The section Edit: correct, take back, accept, keep to train with."""

from __future__ import annotations

import json

import numpy as np
import slicer
from DistillSegPanel import Outputs
from PanelCase import FAST, PanelCase, needsEngine
from SlicerCase import SlicerCase

from DistillSegLib.datasets import check_case, read_dataset

HEAD = "DistillSeg_1"


class EditingCase(PanelCase):
    """A segmented sample, and the section open."""

    def setUp(self):
        super().setUp()
        self.choose()
        self.segment()
        self.node = self.panel.parameters.outputSegmentation
        self.volume = self.panel.parameters.inputVolume
        self.ui = self.panel.editing.ui
        self.panel.ui.editingSection.collapsed = False
        slicer.app.processEvents()
        self.editor = self.panel.editing.editor

    def mask(self, segmentId=HEAD):
        return slicer.util.arrayFromSegmentBinaryLabelmap(self.node, segmentId, self.volume) > 0

    def erase(self, segmentId=HEAD, count=200):
        """What an effect does: change a segment's voxels. Returns the mask before."""
        before = self.mask(segmentId)
        after = before.copy()
        after[tuple(np.argwhere(before)[:count].T)] = False
        self.editor.saveForUndo()
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            after.astype(np.uint8), self.node, segmentId, self.volume
        )
        self.assertEqual(np.count_nonzero(before) - np.count_nonzero(self.mask(segmentId)), count)
        return before


@needsEngine
class EditorTest(EditingCase):
    def test_a_new_result_is_at_once_ready_to_be_corrected(self):
        widget = self.editor.widget
        self.assertIs(widget.segmentationNode(), self.node)
        self.assertIs(widget.sourceVolumeNode(), self.volume)
        self.assertEqual(widget.maximumNumberOfUndoStates, 10)
        self.assertFalse(widget.segmentationNodeSelectorVisible)
        self.assertFalse(widget.sourceVolumeNodeSelectorVisible)
        self.assertEqual(widget.mrmlSegmentEditorNode().GetSingletonTag(), "DistillSeg")
        self.screenshot("edit", self.panel.widget)

    def test_leaving_puts_the_tool_down_and_coming_back_goes_on(self):
        widget = self.editor.widget
        widget.setActiveEffectByName("Paint")
        self.assertIsNotNone(widget.activeEffect())
        self.leaveModule()
        self.assertIsNone(widget.activeEffect())
        self.assertFalse(self.editor.isActive)
        self.openModule("DistillSeg")
        self.assertTrue(self.editor.isActive)
        self.assertIs(widget.segmentationNode(), self.node)

    def test_folding_the_section_puts_the_tool_down(self):
        self.editor.widget.setActiveEffectByName("Erase")
        self.panel.ui.editingSection.collapsed = True
        self.assertIsNone(self.editor.widget.activeEffect())
        self.assertFalse(self.editor.isActive)

    def test_closing_the_scene_leaves_an_empty_editor_that_works_again(self):
        self.editor.widget.setActiveEffectByName("Paint")
        slicer.mrmlScene.Clear()
        slicer.app.processEvents()
        self.assertIsNone(self.editor.widget.segmentationNode())
        self.assertIsNone(self.editor.widget.activeEffect())
        self.assertFalse(self.ui.acceptButton.enabled)
        self.choose()
        self.segment()
        self.assertIs(
            self.editor.widget.segmentationNode(), self.panel.parameters.outputSegmentation
        )
        editors = slicer.util.getNodesByClass("vtkMRMLSegmentEditorNode")
        ours = [node for node in editors if node.GetSingletonTag() == "DistillSeg"]
        self.assertEqual(len(ours), 1)

    def test_deleting_the_segmentation_disables_with_a_reason(self):
        slicer.mrmlScene.RemoveNode(self.node)
        self.waitUntil(lambda: not self.ui.resetButton.enabled, 5)
        self.assertIn("Segment a volume", self.ui.resetButton.toolTip)


@needsEngine
class ReviewTest(EditingCase):
    def test_reset_takes_one_structure_back_and_undo_brings_the_edit_back(self):
        before = self.erase()
        edited = self.mask()
        self.editor.select(HEAD)
        self.ui.resetButton.click()
        np.testing.assert_array_equal(self.mask(), before)
        self.assertEqual(Outputs.editedSegments(self.node), [])
        self.editor.widget.undo()
        np.testing.assert_array_equal(self.mask(), edited)

    def test_reset_restores_what_a_neighbour_was_painted_over(self):
        raw = self.mask()
        body = self.mask("DistillSeg_2")
        painted = body | raw
        self.editor.saveForUndo()
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            painted.astype(np.uint8), self.node, "DistillSeg_2", self.volume
        )
        self.erase(count=1)
        self.editor.select(HEAD)
        self.ui.resetButton.click()
        np.testing.assert_array_equal(self.mask(), raw)
        np.testing.assert_array_equal(self.mask("DistillSeg_2"), painted)  # its own edit stays
        self.editor.select("DistillSeg_2")
        self.ui.resetButton.click()
        np.testing.assert_array_equal(self.mask("DistillSeg_2"), body)
        self.assertEqual(Outputs.editedSegments(self.node), [])

    def test_a_segment_of_one_s_own_cannot_be_reset(self):
        identifier = self.node.GetSegmentation().AddEmptySegment("mine", "mine")
        self.editor.select(identifier)
        self.ui.resetButton.click()
        self.assertIn("'mine' is yours", self.panel.said)

    def test_accepting_goes_from_structure_to_structure(self):
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        segmentation = self.node.GetSegmentation()
        self.editor.select(HEAD)
        self.ui.acceptButton.click()
        head, body = (segmentation.GetNthSegment(n) for n in (0, 1))
        self.assertEqual(logic.GetSegmentStatus(head), logic.Completed)
        self.assertNotEqual(logic.GetSegmentStatus(body), logic.Completed)
        self.assertEqual(self.editor.widget.currentSegmentID(), "DistillSeg_2")
        self.assertIn("1 to go", self.panel.said)
        self.ui.acceptButton.click()
        self.assertEqual(logic.GetSegmentStatus(body), logic.Completed)
        self.assertIn("All 2 structures", self.panel.said)

    def test_a_foreign_segmentation_can_be_edited_but_not_reset_or_saved(self):
        foreign = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "manual")
        foreign.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        foreign.GetSegmentation().AddEmptySegment("x", "x")
        self.panel.editing.edit(foreign, "x")
        self.assertIs(self.editor.widget.segmentationNode(), foreign)
        self.assertTrue(self.ui.acceptButton.enabled)
        self.assertFalse(self.ui.resetButton.enabled)
        self.assertFalse(self.ui.saveButton.enabled)
        self.assertIn("No model made", self.ui.resetButton.toolTip)


@needsEngine
class CorrectionTest(EditingCase):
    def save(self, folder):
        self.ui.correctionFolder.currentPath = str(folder)
        self.ui.saveButton.click()
        self.waitUntil(lambda: not self.panel.busy, 30, self.panel.said)

    def test_a_correction_becomes_a_case_that_training_reads(self):
        before = self.erase()
        folder = self.home / "症例 @ corrections"
        self.save(folder)
        dataset = read_dataset(folder)
        (case,) = dataset.cases
        self.assertEqual(check_case(case, dataset.labels), "")
        self.assertEqual([label.value for label in dataset.labels], [1, 2])
        (record,) = (folder / "corrections").glob("*.json")
        record = json.loads(record.read_text(encoding="utf-8"))
        self.assertEqual((record["model"], record["changed_voxels"]), (FAST, 200))
        count = np.count_nonzero(before)
        self.assertAlmostEqual(
            record["structures"][0]["dice"], 2 * (count - 200) / (2 * count - 200)
        )
        self.assertIn("the folder holds 1 cases", self.panel.said)
        names = " ".join(str(path) for path in folder.rglob("*"))
        self.assertNotIn("sample", names.removeprefix(str(folder)))

    def test_below_a_transform_image_and_masks_stay_together(self):
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = np.eye(4)
        matrix[:3, 3] = (30, -20, 10)
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
        self.volume.SetAndObserveTransformNodeID(transform.GetID())
        self.node.SetAndObserveTransformNodeID(transform.GetID())
        self.erase(count=50)
        self.save(self.home / "moved")
        (record,) = (self.home / "moved" / "corrections").glob("*.json")
        self.assertEqual(json.loads(record.read_text(encoding="utf-8"))["changed_voxels"], 50)

    def test_a_folder_with_another_data_set_is_refused_in_one_sentence(self):
        folder = self.home / "theirs"
        folder.mkdir()
        (folder / "dataset.json").write_text('{"name": "Task04"}')
        self.save(folder)
        self.assertIn("choose another folder", self.panel.said)
        self.assertEqual(len(list(folder.iterdir())), 1)


class EmptyTest(SlicerCase):
    def test_without_a_result_every_button_says_what_is_missing(self):
        panel = self.openModule("DistillSeg").panel
        self.addCleanup(self.leaveModule)
        panel.ui.editingSection.collapsed = False
        ui = panel.editing.ui
        for button in (ui.resetButton, ui.acceptButton, ui.saveButton):
            self.assertFalse(button.enabled)
            self.assertIn("Segment a volume", button.toolTip)
        editor = panel.editing.editor  # of an earlier test, in the application that runs them all
        self.assertTrue(editor is None or not editor.isActive)
        self.screenshot("edit-empty", panel.widget)
