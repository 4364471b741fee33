"""The section Results: structures, volumes, signs to look at, and what clicks do."""

from __future__ import annotations

import numpy as np
import qt
import slicer
from DistillSegPanel import Confidence, Outputs
from DistillSegPanel.Results import CONFIDENCE, SIGNS, STRUCTURE, VISIBLE, VOLUME
from DistillSegPanel.Views import COMPARE_GROUP
from PanelCase import FAST, SAMPLE, PanelCase, needsEngine

HEAD, BODY = "DistillSeg_1", "DistillSeg_2"


@needsEngine
class ResultsTest(PanelCase):
    def setUp(self):
        super().setUp()
        self.section = self.panel.results
        self.table = self.section.table

    def segmented(self):
        self.choose()
        self.segment()
        return self.panel.parameters.outputSegmentation

    def text(self, row, column):
        return self.table.item(row, column).text()

    def edit(self, node, change, segmentId=HEAD):
        """Change a structure's voxels as the editor does, and wait until it is measured."""
        volume = Outputs.volumeOf(node)
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId, volume)
        change(mask)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segmentId, volume)
        self.waitFor(0.1)
        self.waitUntil(lambda: self.section.findings.isCurrent, 20)
        self.settle()

    def test_each_structure_has_a_row_with_its_volume(self):
        node = self.segmented()
        self.assertEqual(self.table.rowCount, 2)
        self.assertEqual(self.text(0, STRUCTURE), "Hippocampus, anterior")
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, HEAD, Outputs.volumeOf(node))
        self.assertAlmostEqual(float(self.text(0, VOLUME)), mask.sum() / 1000, delta=0.006)
        self.assertEqual(self.text(0, SIGNS), "")

    def test_a_stack_within_the_heart_is_not_cut_off(self):
        heart = SAMPLE.with_name("left-ventricle-mean.nii.gz")
        self.panel.parameters.inputVolume = slicer.util.loadVolume(str(heart))
        self.settle()
        self.assertEqual(self.panel.parameters.model, "left-ventricle-fast@1.0.0")
        self.segment()
        self.waitUntil(lambda: self.section.findings.isCurrent, 20)
        self.settle()
        self.assertEqual(self.table.rowCount, 1)
        self.assertEqual(self.text(0, SIGNS), "")

    def test_before_a_result_the_section_is_hidden(self):
        self.settle()
        self.assertFalse(self.panel.ui.resultsSection.isVisibleTo(self.panel.widget))
        self.segmented()
        self.assertTrue(self.panel.ui.resultsSection.isVisibleTo(self.panel.widget))

    def test_edits_are_measured_again_with_their_signs(self):
        node = self.segmented()
        before = self.text(0, VOLUME)

        def change(mask):
            mask[0, 0:4, 0:4] = 1  # at the edge of the image, and far from the rest

        self.edit(node, change)
        self.assertNotEqual(self.text(0, VOLUME), before)
        self.assertEqual(self.text(0, SIGNS), "cut off, 2 parts")
        self.assertIn("edge of the image", self.table.item(0, SIGNS).toolTip())
        self.screenshot("results-signs")

    def test_a_structure_that_is_gone_is_named(self):
        node = self.segmented()
        self.edit(node, lambda mask: mask.fill(0))
        self.assertEqual(self.text(0, SIGNS), "not found")

    def test_the_tick_shows_and_hides_a_structure(self):
        node = self.segmented()
        self.table.item(0, VISIBLE).setCheckState(qt.Qt.Unchecked)
        self.assertFalse(node.GetDisplayNode().GetSegmentVisibility(HEAD))
        self.assertTrue(node.GetDisplayNode().GetSegmentVisibility(BODY))
        node.GetDisplayNode().SetSegmentVisibility(HEAD, True)  # elsewhere
        self.settle()
        self.assertEqual(self.table.item(0, VISIBLE).checkState(), qt.Qt.Checked)

    def test_a_click_centres_all_views(self):
        node = self.segmented()
        for row, identifier in enumerate((HEAD, BODY)):
            self.table.cellClicked(row, STRUCTURE)
            expected = node.GetSegmentCenterRAS(identifier)
            nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
            for sliceNode in (n for n in nodes if n.GetViewGroup() != COMPARE_GROUP):
                origin = [sliceNode.GetSliceToRAS().GetElement(n, 3) for n in range(3)]
                normal = [sliceNode.GetSliceToRAS().GetElement(n, 2) for n in range(3)]
                away = np.dot(np.subtract(expected, origin), normal)
                self.assertLess(abs(away), 1.0)
            camera = slicer.util.getNodesByClass("vtkMRMLCameraNode")[0]
            np.testing.assert_allclose(camera.GetFocalPoint(), expected)

    def test_a_double_click_opens_the_editor_on_the_structure(self):
        node = self.segmented()
        self.table.cellDoubleClicked(1, STRUCTURE)
        slicer.app.processEvents()
        self.assertFalse(self.panel.ui.editingSection.collapsed)
        widget = self.panel.editing.editor.widget
        self.assertIs(widget.segmentationNode(), node)
        self.assertEqual(widget.currentSegmentID(), BODY)

    def test_the_menu_resets_a_structure(self):
        node = self.segmented()
        before = self.text(0, VOLUME)
        self.edit(node, lambda mask: mask.fill(0))
        self.resetAction(0).trigger()
        self.waitFor(0.6)
        self.waitUntil(lambda: self.section.findings.isCurrent, 20)
        self.settle()
        self.assertEqual(self.text(0, VOLUME), before)
        self.assertIn("is as the model gave it", self.panel.said)
        self.assertEqual(Outputs.editedSegments(node), [])

    def resetAction(self, row):
        (action,) = [a for a in self.section.menuFor(row).actions() if "Reset" in a.text]
        return action

    def test_a_reset_from_the_menu_can_be_undone_in_the_editor(self):
        node = self.segmented()
        self.table.cellDoubleClicked(0, STRUCTURE)
        slicer.app.processEvents()
        self.edit(node, lambda mask: mask[:20].fill(0))
        edited = self.text(0, VOLUME)
        self.resetAction(0).trigger()
        self.panel.editing.editor.widget.undo()
        self.waitFor(0.6)
        self.waitUntil(lambda: self.section.findings.isCurrent, 20)
        self.settle()
        self.assertEqual(self.text(0, VOLUME), edited)

    def test_a_segment_of_one_s_own_offers_no_reset(self):
        node = self.segmented()
        node.GetSegmentation().AddEmptySegment("mine", "mine")
        self.settle()
        self.assertEqual([self.resetAction(row).enabled for row in (0, 1, 2)], [True, True, False])

    def test_confidence_is_a_bar_with_its_number_and_blank_where_unknown(self):
        node = self.segmented()
        segments = [node.GetSegmentation().GetSegment(i) for i in (HEAD, BODY)]
        Confidence.keep(segments[0], 0.934)
        Confidence.keep(segments[1], None)
        self.settle()
        self.assertEqual([self.text(row, CONFIDENCE) for row in (0, 1)], ["0.93", ""])
        first, second = (self.table.item(row, CONFIDENCE) for row in (0, 1))
        self.assertFalse(first.icon().isNull())
        self.assertTrue(second.icon().isNull())
        self.assertIn("93 % on average", first.toolTip())
        self.screenshot("results-confidence", self.panel.ui.resultsSection)
        path = str(self.home / "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(path)
        self.waitUntil(lambda: self.table.rowCount == 2 and self.text(0, CONFIDENCE) == "0.93", 10)
        self.assertEqual(self.text(1, CONFIDENCE), "")

    def test_the_model_s_confidence_comes_with_its_result(self):
        node = self.segmented()
        known = self.panel.work.lastSegmentation.confidence
        for row, (identifier, value) in enumerate(((HEAD, 1), (BODY, 2))):
            segment = node.GetSegmentation().GetSegment(identifier)
            self.assertAlmostEqual(Confidence.confidenceOf(segment), known[value], places=4)
            self.assertEqual(self.text(row, CONFIDENCE), f"{known[value]:.2f}")
            self.assertTrue(0.5 < known[value] <= 1)

    def test_a_strange_tag_is_no_confidence(self):
        segment = slicer.vtkSegment()
        self.assertIsNone(Confidence.confidenceOf(segment))
        for text in ("high", "7", "-1", "nan"):
            segment.SetTag(Confidence.CONFIDENCE, text)
            self.assertIsNone(Confidence.confidenceOf(segment), text)

    def test_a_click_shows_a_structure_alone_in_3d_and_another_one_all(self):
        node = self.segmented()
        display = node.GetDisplayNode()

        def shown():
            return [bool(display.GetSegmentVisibility3D(i)) for i in (HEAD, BODY)]

        self.table.cellClicked(0, STRUCTURE)
        self.assertEqual(shown(), [True, False])
        self.table.cellClicked(1, VOLUME)
        self.assertEqual(shown(), [False, True])
        self.table.cellClicked(1, VOLUME)
        self.assertEqual(shown(), [True, True])
        self.table.cellActivated(0, STRUCTURE)  # the key Return
        self.assertEqual(shown(), [True, False])
        self.assertTrue(display.GetSegmentVisibility(BODY))  # the slices still show it

    def test_what_was_accepted_or_edited_is_named(self):
        node = self.segmented()
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        for segmentId, status in ((HEAD, logic.Completed), (BODY, logic.InProgress)):
            logic.SetSegmentStatus(node.GetSegmentation().GetSegment(segmentId), status)
        self.settle()
        self.assertEqual([self.text(row, SIGNS) for row in (0, 1)], ["accepted", "edited"])

    def test_closing_the_scene_in_the_midst_of_measuring_leaves_nothing_behind(self):
        node = self.segmented()
        segmentation = node.GetSegmentation()
        event = slicer.vtkSegmentation.SourceRepresentationModified
        self.assertTrue(segmentation.HasObserver(event))
        self.section.findings.measure()
        slicer.mrmlScene.Clear()
        for each in (event, slicer.vtkSegmentation.SegmentAdded):
            observers = [o for o in self.section.findings.Observations if o[1] == each]
            self.assertEqual(observers, [])
        self.waitUntil(lambda: not self.workers(), 10)
        self.assertEqual(self.section.findings.bySegment, {})

    def test_an_empty_result_says_what_the_model_expects(self):
        node = slicer.util.addVolumeFromArray(
            np.random.default_rng(1).normal(100, 1, (36, 50, 35)).astype(np.float32), name="noise"
        )
        self.choose(node)
        self.segment()
        output = self.panel.parameters.outputSegmentation
        for identifier in (HEAD, BODY):
            self.edit(output, lambda mask: mask.fill(0), identifier)
        self.assertTrue(self.section.isEmpty())
        self.assertEqual([self.text(row, SIGNS) for row in (0, 1)], ["not found"] * 2)
        for words in ("Nothing found", "crops around one hippocampus", "Your volume spans 35 × 50"):
            self.assertIn(words, self.section.ui.resultLabel.text)
        self.screenshot("results-empty")

    def test_deleting_the_result_empties_the_section(self):
        node = self.segmented()
        slicer.mrmlScene.RemoveNode(node)
        self.settle()
        self.assertIsNone(self.section.node)
        self.assertFalse(self.panel.ui.resultsSection.isVisibleTo(self.panel.widget))

    def test_a_foreign_segmentation_has_volumes_and_no_reset(self):
        self.segmented()
        foreign = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "manual")
        foreign.SetReferenceImageGeometryParameterFromVolumeNode(self.panel.parameters.inputVolume)
        mask = np.zeros((36, 50, 35), np.uint8)
        mask[5:15, 5:15, 5:15] = 1
        identifier = foreign.GetSegmentation().AddEmptySegment("mine", "mine")
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            mask, foreign, identifier, self.panel.parameters.inputVolume
        )
        self.panel.parameters.reviewed = foreign
        self.waitUntil(lambda: self.section.findings.isCurrent, 20)
        self.settle()
        self.assertEqual(self.table.rowCount, 1)
        self.assertEqual(self.text(0, VOLUME), "1.00")
        self.assertFalse(self.resetAction(0).enabled)
        self.assertEqual(self.panel.parameters.model, FAST)
