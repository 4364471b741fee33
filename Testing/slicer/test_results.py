"""The section Results: structures, volumes, signs to look at, and what clicks do."""

from __future__ import annotations

import numpy as np
import qt
import slicer
from DistillSegPanel import Outputs
from DistillSegPanel.Results import SIGNS, STRUCTURE, VISIBLE, VOLUME
from PanelCase import FAST, PanelCase, needsEngine

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
            for sliceNode in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
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
        menu = self.section.menuFor(0)
        menu.actions()[1].trigger()
        self.waitFor(0.6)
        self.waitUntil(lambda: self.section.findings.isCurrent, 20)
        self.settle()
        self.assertEqual(self.text(0, VOLUME), before)
        self.assertIn("is as the model gave it", self.panel.said)

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
        self.assertFalse(self.section.menuFor(0).actions()[1].enabled)
        self.assertEqual(self.panel.parameters.model, FAST)
