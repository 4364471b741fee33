"""A comparison outlives edits, deletions, saving and closing of the scene, as its user expects."""

from __future__ import annotations

import csv

import numpy as np
import slicer
from CompareCase import CompareCase
from PanelCase import needsEngine

import DistillSeg

DistillSeg.findLibrary()

from DistillSegPanel import CompareLayout, ComparisonTable  # noqa: E402
from DistillSegPanel.CompareDisplay import ownDisplay  # noqa: E402


@needsEngine
class SceneTest(CompareCase):
    def test_deleting_b_or_closing_the_scene_leaves_the_views(self):
        before = slicer.app.layoutManager().layout
        self.runReference()
        slicer.mrmlScene.RemoveNode(self.panel.parameters.compareB)
        self.waitUntil(lambda: not self.section.view.isOpen)
        self.assertEqual(slicer.app.layoutManager().layout, before)
        slicer.mrmlScene.Clear()
        self.runReference()
        slicer.mrmlScene.Clear()
        self.waitUntil(lambda: not self.section.view.isOpen)
        self.assertEqual(slicer.app.layoutManager().layout, before)
        self.assertFalse(self.ui.nextButton.enabled)

    def test_a_saved_scene_comes_back_with_table_views_and_slice(self):
        self.runReference()
        self.section.looks.onPlane(2)
        self.section.looks.onStyle(1)
        self.ui.opacitySlider.value = 0.4
        self.ui.metricsTable.selectRow(1)
        self.ui.nextButton.click()
        name, shown = self.panel.parameters.comparedStructure, self.panel.parameters.comparedSlice
        rows, offsets = self.section.table.rows, self.offsets()
        path = str(self.home / "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        self.waitUntil(lambda: not self.section.view.isOpen)
        self.settle()
        self.assertEqual((self.ui.planeBox.currentIndex, self.ui.styleBox.currentIndex), (0, 0))
        slicer.util.loadScene(path)
        self.assertEqual(
            [r["structure"] for r in self.section.table.rows], [r["structure"] for r in rows]
        )
        for row, known in zip(self.section.table.rows, rows):
            for key in ("dice", "hd95_mm", "worst_slice", ComparisonTable.POSITION):
                self.assertAlmostEqual(row[key], known[key], places=5)
        self.waitUntil(lambda: self.section.view.isOpen, 60, self.panel.said)
        self.waitUntil(lambda: not self.panel.busy)
        parameters = self.panel.parameters
        self.assertEqual((parameters.comparedStructure, parameters.comparedSlice), (name, shown))
        np.testing.assert_allclose(self.offsets(), offsets, atol=1e-3)
        self.assertEqual({n.GetOrientation() for n in CompareLayout.sliceNodes()}, {"Sagittal"})
        self.assertEqual((self.ui.planeBox.currentIndex, self.ui.styleBox.currentIndex), (2, 1))
        self.assertAlmostEqual(ownDisplay(parameters.difference, "D").GetOpacity2DFill(), 0.4)
        displays = slicer.util.getNodesByClass("vtkMRMLSegmentationDisplayNode")
        ours = sorted(d.GetAttribute("DistillSeg.Comparison") or "" for d in displays)
        self.assertEqual([each for each in ours if each], ["A", "B", "D"])
        for kind in ("vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode"):
            expected = 1 if "Chart" in kind else 2
            self.assertEqual(len(slicer.util.getNodesByClass(kind)), expected)
        self.section.view.close()
        self.assertEqual(self.userViews(), [()] * len(self.userViews()))

    def userViews(self):
        """The view lists of displays that are not ours."""
        displays = slicer.util.getNodesByClass("vtkMRMLSegmentationDisplayNode")
        return [
            tuple(d.GetViewNodeIDs())
            for d in displays
            if not d.GetAttribute("DistillSeg.Comparison")
        ]

    def test_an_edit_after_comparing_and_another_choice_are_said(self):
        a = self.runReference()
        parameters = self.panel.parameters
        b, warned = parameters.compareB, self.ui.editedLabel
        self.assertFalse(warned.isVisibleTo(self.panel.widget))
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(b, "DistillSeg_1", parameters.inputVolume)
        mask[:18] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            mask, b, "DistillSeg_1", parameters.inputVolume
        )
        self.settle()
        self.assertIn("before the last edit of B", warned.text)
        self.assertTrue(warned.isVisibleTo(self.panel.widget))
        self.screenshot("compare-edited", self.panel.ui.comparisonSection)
        self.compareButton(a, b)
        self.assertFalse(warned.isVisibleTo(self.panel.widget))
        self.section.view.close()
        other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other")
        parameters.compareB = other
        self.settle()
        self.assertIn(f"are of '{a.GetName()}' and '{b.GetName()}'", warned.text)
        self.assertTrue(self.ui.csvButton.enabled)

    def test_swapping_compares_anew_and_the_views_stay(self):
        a = self.runReference()
        parameters = self.panel.parameters
        b, rows = parameters.compareB, self.section.table.rows
        layouts = []
        manager = slicer.app.layoutManager()
        manager.connect("layoutChanged(int)", layouts.append)
        self.addCleanup(manager.disconnect, "layoutChanged(int)", layouts.append)
        self.ui.swapButton.click()
        self.waitUntil(lambda: not self.panel.busy, 30)
        self.settle()
        self.assertEqual((parameters.compareA, parameters.compareB), (b, a))
        for row, before in zip(self.section.table.rows, rows):
            self.assertAlmostEqual(row["dice"], before["dice"], places=9)
            self.assertEqual(row["volume_a_ml"], before["volume_b_ml"])
        self.assertTrue(self.section.view.isOpen)
        self.assertEqual(layouts, [])
        self.assertFalse(self.ui.editedLabel.isVisibleTo(self.panel.widget))

    def test_the_numbers_and_their_profiles_come_back_without_comparing(self):
        self.runReference()
        profiles = [ComparisonTable.profileOf(row) for row in self.section.table.rows]
        known = self.expected().rows[0].disagreement.areas_mm2["axial"]
        np.testing.assert_allclose(profiles[0], np.trim_zeros(known), rtol=1e-3)
        self.section.view.close()
        path = str(self.home / "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(path)
        self.settle()
        self.assertFalse(self.section.view.isOpen)
        rows = self.section.table.rows
        self.assertEqual([ComparisonTable.profileOf(row) for row in rows], profiles)
        self.section.files.saveCsv(str(self.home / "again.csv"))
        text = (self.home / "again.csv").read_text(encoding="utf-8")
        self.expected().to_csv(self.home / "known.csv")
        found, expected = (
            list(csv.DictReader(each.splitlines()))
            for each in (text, (self.home / "known.csv").read_text(encoding="utf-8"))
        )
        for row, reference in zip(found, expected):
            self.assertEqual(row["worst_slice"], reference["worst_slice"])
            self.assertAlmostEqual(float(row["dice"]), float(reference["dice"]), places=5)

    def test_nothing_is_left_behind_when_the_scene_closes(self):
        self.runReference()
        a, b = self.panel.parameters.compareA, self.panel.parameters.compareB
        segmentations = [a.GetSegmentation(), b.GetSegmentation()]
        slicer.mrmlScene.Clear()
        self.settle()
        for watcher in (self.section.edits, self.panel.results, self.panel.results.findings):
            observed = [each[0] for each in watcher.Observations]
            for node in (a, b, *segmentations):
                self.assertNotIn(node, observed)
        self.assertEqual(self.section.keys.keys, set())

    def test_the_module_s_own_views_come_back_with_it(self):
        self.runReference()
        before = slicer.app.layoutManager().layout
        self.leaveModule()
        self.assertEqual(self.section.keys.keys, set())
        self.assertNotEqual(slicer.app.layoutManager().layout, before)
        self.openModule("DistillSeg")
        self.waitUntil(lambda: self.section.view.isOpen)
        self.assertEqual(slicer.app.layoutManager().layout, before)
