"""The section Compare: fast against reference model on the bundled sample, by clicks."""

from __future__ import annotations

import csv
import math
from unittest import mock

import numpy as np
import qt
import SimpleITK as sitk
import slicer
import vtk
from CompareCase import CompareCase
from PanelCase import FAST, REFERENCE, SAMPLE, needsEngine

import DistillSeg

DistillSeg.findLibrary()

from DistillSegPanel import (  # noqa: E402
    CompareLayout,
    ComparisonTable,
    DifferenceMap,
    DisagreementPlot,
    Matching,
    ReferenceModel,
    Segments,
)
from DistillSegPanel.CompareDisplay import ownDisplay  # noqa: E402
from DistillSegPanel.MetricsTable import sortedOrder  # noqa: E402

from DistillSegLib import Segmenter  # noqa: E402
from DistillSegLib.comparison import COLUMNS, FRAME_OF_REFERENCE  # noqa: E402
from DistillSegLib.segmentations import write_segmentation  # noqa: E402


@needsEngine
class ComparisonTest(CompareCase):
    def test_one_click_runs_the_reference_and_shows_both_side_by_side(self):
        a = self.runReference()
        b = self.panel.parameters.compareB
        self.assertEqual((self.panel.parameters.compareA, b is a), (a, False))
        self.assertTrue(CompareLayout.isShown())
        expected = self.expected()
        for row, known in zip(self.section.table.rows, expected.rows):
            self.assertEqual(row["structure"], known.structure)
            for name in ("dice", "hd95_mm", "nsd", "volume_a_ml", "worst_slice"):
                self.assertAlmostEqual(row[name], getattr(known, name), places=9)
        self.assertEqual(self.column(1), sorted(f"{row.dice:.3f}" for row in expected.rows))
        self.assertIn("Lowest Dice", self.panel.said)
        self.panel.ui.modelsSection.collapsed = True
        self.panel.ui.segmentSection.collapsed = True
        self.panel.ui.resultsSection.collapsed = True
        self.waitFor(0.2)
        self.assertLessEqual(self.panel.widget.minimumSizeHint.width(), 420)
        self.screenshot("compare")
        self.screenshot("compare-section", self.panel.ui.comparisonSection)

    def test_the_views_follow_what_is_clicked(self):
        self.runReference()
        for check in (
            self.clickShowsAStructureAlone,
            self.nAndPStepThroughTheWorst,
            self.clickOnThePlotLeadsToItsSlice,
            self.differenceMapIsTheLibrarys,
            self.stylesAndBlinkingChangeOurDisplay,
            self.digitsShowOneViewAlone,
            self.spaceBlinksUnlessAButtonHasTheFocus,
            self.theEditorsKeysComeFirst,
            self.distancesTakeThePlaceOfTheMap,
            self.anotherPlaneTurnsAllViews,
        ):
            with self.subTest(check.__name__):
                check()

    def test_the_numbers_can_be_taken_away_and_the_matching_changed(self):
        self.runReference()
        for check in (
            self.csvAndCopyHoldTheNumbers,
            self.allLiesInOneFolder,
            self.structuresAreMatchedByHand,
        ):
            with self.subTest(check.__name__):
                check()

    def clickShowsAStructureAlone(self):
        a = self.panel.parameters.compareA
        b, expected = self.panel.parameters.compareB, self.expected()
        for place in (1, 0):
            self.ui.metricsTable.selectRow(place)
            known = {row.structure: row for row in expected.rows}[self.column(0)[place]]
            position = expected.positions_mm("axial")[known.worst_slice]
            for offset in self.offsets():
                self.assertAlmostEqual(offset, position, places=3)
            for letter, node, label in (("A", a, known.a), ("B", b, known.b)):
                display = ownDisplay(node, letter)
                ids = [f"DistillSeg_{value}" for value in (1, 2)]
                visible = [i for i in ids if display.GetSegmentVisibility(i)]
                self.assertEqual(visible, [f"DistillSeg_{label.value}"])
            chart = self.panel.parameters.comparisonChart
            self.assertEqual(chart.GetTitle(), known.structure)
            # The user's own displays are as they were.
            for node in (a, b):
                for value in (1, 2):
                    self.assertTrue(
                        node.GetDisplayNode().GetSegmentVisibility(f"DistillSeg_{value}")
                    )

    def nAndPStepThroughTheWorst(self):
        worst = self.section.view.worst
        count, first = len(worst.slices), self.ui.sliceLabel.text
        self.assertGreater(count, 1)
        self.assertIn(f"Worst 1 of {count}", first)
        self.assertLessEqual({"N", "P"}, self.section.keys.keys)
        positions, seen = worst.comparison.positions_mm("axial"), []
        for number in range(count):
            seen.append(worst.shown)
            for offset in self.offsets():
                self.assertAlmostEqual(offset, positions[worst.slices[number]], places=3)
            self.ui.nextButton.click()
        self.assertEqual((tuple(seen), self.ui.sliceLabel.text), (worst.slices, first))
        self.ui.previousButton.click()
        self.assertIn(f"Worst {count} of {count}", self.ui.sliceLabel.text)
        spacing = abs(positions[1] - positions[0])
        gaps = [abs(i - j) * spacing for i in seen for j in seen if i != j]
        self.assertGreaterEqual(min(gaps), 5)

    def clickOnThePlotLeadsToItsSlice(self):
        chart = self.panel.parameters.comparisonChart
        series = chart.GetNthPlotSeriesNode(0)
        table = series.GetTableNode().GetTable()
        names, chosen, selections = vtk.vtkStringArray(), vtk.vtkIdTypeArray(), vtk.vtkCollection()
        names.InsertNextValue(series.GetID())
        chosen.InsertNextValue(3)
        selections.AddItem(chosen)
        self.section.view.onPlotClicked(names, selections)
        where = table.GetColumnByName(DisagreementPlot.WHERE).GetValue(3)
        area = table.GetColumnByName(DisagreementPlot.AREA).GetValue(3)
        for offset in self.offsets():
            self.assertAlmostEqual(offset, where, places=3)
        self.assertIn(f"{where:.1f} mm: {area:.0f} mm²", self.ui.sliceLabel.text)
        # The table holds what the library counted.
        worst = self.section.view.worst
        index = table.GetColumnByName(DisagreementPlot.INDEX).GetValue(3)
        self.assertEqual(area, worst.row.disagreement.areas_mm2["axial"][index])

    def differenceMapIsTheLibrarys(self):
        node = self.panel.parameters.difference
        volume = self.panel.parameters.inputVolume
        expected = self.expected()
        row = {row.structure: row for row in expected.rows}[self.section.view.worst.row.structure]
        grid = sitk.ReadImage(str(SAMPLE))
        known = sitk.GetArrayFromImage(
            sitk.Resample(expected.difference([row]), grid, sitk.Transform())
        )
        for identifier, value, _color in DifferenceMap.SEGMENTS:
            found = slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, volume)
            np.testing.assert_array_equal(found > 0, known == value)
            self.assertGreater(found.sum(), 0)
        self.ui.opacitySlider.value = 0.3
        display = ownDisplay(node, "D")
        self.assertAlmostEqual(display.GetOpacity2DFill(), 0.3)

    def press(self, key):
        """What Qt does with a key of the window."""
        self.section.keys._keys[key].activated()
        slicer.app.processEvents()

    def digitsShowOneViewAlone(self):
        node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()

        def alone():
            views = [CompareLayout.viewNode(name) for name in CompareLayout.SLICES]
            return [bool(node.IsMaximizedViewNode(view)) for view in views]

        self.press("1")
        self.assertEqual(alone(), [True, False, False])
        self.screenshot("compare-alone")
        self.press("3")
        self.assertEqual(alone(), [False, False, True])
        self.assertTrue(self.section.view.isOpen)
        self.press("3")
        self.assertEqual(alone(), [False, False, False])

    def spaceBlinksUnlessAButtonHasTheFocus(self):
        self.ui.metricsTable.setFocus()
        self.press("Space")
        self.assertTrue(self.ui.blinkButton.checked)
        self.press("Space")
        self.assertFalse(self.ui.blinkButton.checked)
        with mock.patch.object(qt.QApplication, "focusWidget", return_value=self.ui.copyButton):
            self.press("Space")
        self.assertFalse(self.ui.blinkButton.checked)
        self.assertIn("was copied", self.panel.said)

    def theEditorsKeysComeFirst(self):
        self.assertEqual(self.section.keys.keys, {"1", "2", "3", "Space", "N", "P"})
        self.panel.ui.editingSection.collapsed = False
        self.settle()
        self.assertTrue(self.panel.editing.isListening)
        self.assertEqual(self.section.keys.keys, {"N", "P"})
        self.panel.ui.editingSection.collapsed = True
        self.settle()
        self.assertIn("Space", self.section.keys.keys)

    def distancesTakeThePlaceOfTheMap(self):
        parameters = self.panel.parameters
        self.ui.metricsTable.selectRow(0)
        self.ui.distanceBox.click()
        self.waitUntil(lambda: parameters.distances is not None, 20)
        self.settle()
        volume, view = parameters.distances, self.section.view
        known = view.comparison.distance_to_a(view.worst.row)
        np.testing.assert_array_equal(
            slicer.util.arrayFromVolume(volume), sitk.GetArrayFromImage(known)
        )
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        origin = [matrix.GetElement(n, 3) for n in range(3)]
        np.testing.assert_allclose(origin, np.multiply(known.GetOrigin(), (-1, -1, 1)))
        display = volume.GetDisplayNode()
        self.assertEqual((display.GetWindowLevelMin(), display.GetWindowLevelMax()), (-5, 5))
        shown = [c.GetForegroundVolumeID() for c in CompareLayout.compositeNodes()]
        self.assertEqual(shown, [None, None, volume.GetID()])
        viewMap = CompareLayout.viewNode(CompareLayout.MAP).GetID()
        b, difference = ownDisplay(parameters.compareB, "B"), ownDisplay(parameters.difference, "D")
        self.assertTrue(b.IsDisplayableInView(viewMap))
        self.assertFalse(difference.GetVisibility())
        self.screenshot("compare-distances")
        self.ui.distanceBox.click()
        self.settle()
        shown = [c.GetForegroundVolumeID() for c in CompareLayout.compositeNodes()]
        self.assertEqual(shown, [None, None, None])
        self.assertFalse(b.IsDisplayableInView(viewMap))
        self.assertTrue(difference.GetVisibility())
        self.assertTrue(difference.IsDisplayableInView(viewMap))

    def anotherPlaneTurnsAllViews(self):
        self.ui.planeBox.setCurrentIndex(1)
        self.section.looks.onPlane(1)  # `activated` comes from the user alone
        worst = self.section.view.worst
        self.assertEqual(worst.plane, "coronal")
        areas = worst.row.disagreement.areas_mm2["coronal"]
        self.assertEqual(areas[worst.shown], areas.max())
        for node in CompareLayout.sliceNodes():
            self.assertEqual(node.GetOrientation(), "Coronal")
            self.assertAlmostEqual(
                node.GetSliceOffset(),
                worst.comparison.positions_mm("coronal")[worst.shown],
                places=3,
            )
        self.screenshot("compare-coronal")

    def stylesAndBlinkingChangeOurDisplay(self):
        a = self.panel.parameters.compareA
        b = self.panel.parameters.compareB
        displays = [ownDisplay(node, letter) for node, letter in ((a, "A"), (b, "B"))]
        viewA, viewB, _map = (CompareLayout.viewNode(name).GetID() for name in CompareLayout.SLICES)

        def shown():
            return [[d.IsDisplayableInView(v) for v in (viewA, viewB)] for d in displays]

        self.assertEqual(shown(), [[True, False], [False, True]])
        self.assertEqual([d.GetVisibility2DFill() for d in displays], [1, 0])
        self.assertEqual(displays[1].GetSliceIntersectionThickness(), 3)
        self.section.looks.onStyle(2)
        self.assertEqual(shown(), [[True, True], [True, True]])
        self.assertEqual([d.GetVisibility2DFill() for d in displays], [0, 1])
        self.screenshot("compare-overlaid")
        self.section.looks.onStyle(0)
        self.ui.blinkButton.checked = True
        seen = set()

        def both():
            seen.add(tuple(map(tuple, shown())))
            return len(seen) == 2

        self.waitUntil(both, 3)
        self.assertEqual(seen, {((True, False), (False, True)), ((False, False), (True, True))})
        self.ui.blinkButton.checked = False
        self.assertEqual(shown(), [[True, False], [False, True]])

    def structuresAreMatchedByHand(self):
        box = self.ui.matchingTable.cellWidget(0, 1)
        self.assertEqual(box.currentText, "Hippocampus, anterior")
        box.setCurrentIndex(2)
        self.section.matching.onActivated(2)  # `activated` comes from the user alone
        self.waitUntil(lambda: self.section.table.rows[0]["matched_by"] == "hand", 30)
        self.waitUntil(lambda: not self.panel.busy)
        rows = self.section.table.rows
        self.assertEqual(rows[0]["structure"], "Hippocampus, anterior / Hippocampus, posterior")
        self.assertLess(rows[0]["dice"], 0.1)
        kept = Matching.keptPairs(self.panel.parameters.comparisonTable)
        self.assertEqual(kept, [(1, 2), (2, 2), (None, 1)])

    def csvAndCopyHoldTheNumbers(self):
        path = self.home / "vergleich ü.csv"
        with mock.patch.object(qt.QFileDialog, "getSaveFileName", return_value=str(path)):
            self.ui.csvButton.click()
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(tuple(rows[0]), COLUMNS)
        expected = self.expected()
        self.assertEqual([float(r["dice"]) for r in rows], [r.dice for r in expected.rows])
        self.ui.copyButton.click()
        lines = slicer.app.clipboard().text().splitlines()
        self.assertEqual(lines[0].split("\t"), [*COLUMNS, ComparisonTable.POSITION])
        self.assertEqual(lines[1].split("\t")[0], expected.rows[0].structure)
        self.assertAlmostEqual(float(lines[1].split("\t")[2]), expected.rows[0].dice, places=5)
        with mock.patch.object(qt.QFileDialog, "getSaveFileName", return_value=str(path / "a.csv")):
            self.ui.csvButton.click()
        self.assertIn("could not be written", self.panel.said)

    def allLiesInOneFolder(self):
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        folder = hierarchy.GetItemChildWithName(hierarchy.GetSceneItemID(), "DistillSeg comparison")
        found = vtk.vtkIdList()
        hierarchy.GetItemChildren(folder, found)
        nodes = [hierarchy.GetItemDataNode(found.GetId(i)) for i in range(found.GetNumberOfIds())]
        parameters = self.panel.parameters
        for node in (parameters.comparisonTable, parameters.comparisonChart, parameters.difference):
            self.assertIn(node, nodes)
        self.assertEqual(len(nodes), 7)  # with two tables and two series of the chart
        self.compareButton(parameters.compareA, parameters.compareB)
        hierarchy.GetItemChildren(folder, found)
        self.assertEqual(found.GetNumberOfIds(), 7)

    def test_a_file_is_loaded_as_reference_and_matched_by_overlap(self):
        a = self.segmented()
        result = Segmenter(REFERENCE.replace("@", "-")).segment(SAMPLE)
        path = self.home / "reader.nii.gz"
        write_segmentation(result, path)
        with mock.patch.object(qt.QFileDialog, "getOpenFileName", return_value=str(path)):
            self.ui.loadButton.click()
        b = self.panel.parameters.compareB
        self.assertIsNot(b, None)
        self.compareButton(a, b)
        ways = [row["matched_by"] for row in self.section.table.rows]
        self.assertEqual(ways, ["overlap", "overlap"])
        dice = [row["dice"] for row in self.section.table.rows]
        np.testing.assert_allclose(dice, [row.dice for row in self.expected().rows], atol=1e-9)
        self.assertIn("overlap", self.ui.notesLabel.text)
        self.assertFalse(b.GetSegmentation().ContainsRepresentation("Closed surface"))  # not ours
        self.screenshot("compare-file", self.panel.ui.comparisonSection)
        with mock.patch.object(
            qt.QFileDialog, "getOpenFileName", return_value=str(self.home / "absent.nii.gz")
        ):
            self.ui.loadButton.click()
        self.assertIn("could not be loaded", self.panel.said)

    def test_what_stands_in_the_way_is_one_sentence(self):
        a = self.segmented()
        self.compareButton(a, a)
        self.assertIn("are the same", self.panel.said)
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "empty")
        self.compareButton(a, empty)
        self.assertIn("'empty' holds no segment", self.panel.said)
        self.assertFalse(self.section.view.isOpen)
        self.assertFalse(self.panel.parameters.comparing)
        self.assertEqual(self.panel.work.jobs.isRunning, False)

    def test_other_frames_of_reference_are_refused(self):
        a = self.segmented()
        other = self.sample("other")
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        constants = slicer.vtkMRMLSubjectHierarchyConstants
        name = constants.GetDICOMFrameOfReferenceUIDAttributeName()
        b = self.panel.work.segment(other, REFERENCE)
        for node, frame in ((self.panel.parameters.inputVolume, "1.2.3"), (other, "1.2.4")):
            hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(node), name, frame)
        self.assertEqual(
            Segments.segmentationFromNode(b).image.GetMetaData(FRAME_OF_REFERENCE), "1.2.4"
        )
        self.compareButton(a, b)
        self.assertIn("different frames of reference", self.panel.said)

    def test_cancel_stops_the_reference_model(self):
        self.segmented()
        self.waitUntil(lambda: self.ui.referenceButton.enabled)
        self.ui.referenceButton.click()
        self.assertEqual(self.ui.compareButton.text, "Cancel")
        self.ui.compareButton.click()
        self.waitUntil(lambda: not self.panel.busy)
        self.assertEqual(self.ui.compareButton.text, "Compare")
        self.assertIsNone(self.panel.parameters.compareB)
        self.assertIn("Cancelled", self.panel.said)

    def test_volumes_of_a_heart_fit_their_column(self):
        heart = SAMPLE.with_name("left-ventricle-mean.nii.gz")
        self.panel.parameters.inputVolume = slicer.util.loadVolume(str(heart))
        self.settle()
        self.assertEqual(self.panel.parameters.model, "left-ventricle-fast@1.0.0")
        self.segment()
        self.waitUntil(lambda: self.ui.referenceButton.enabled)
        self.ui.referenceButton.click()
        self.waitUntil(lambda: self.section.view.isOpen, 60, self.panel.said)
        self.waitUntil(lambda: not self.panel.busy)
        self.assertIn("left-ventricle-reference", self.panel.parameters.compareB.GetName())
        (row,), table = self.section.table.rows, self.ui.metricsTable
        self.assertGreater(row["volume_a_ml"], 100)
        self.assertEqual(float(self.column(4)[0].split()[0]), round(row["volume_a_ml"]))
        for text in self.column(4)[0].split():
            width = table.fontMetrics().boundingRect(text).width()
            self.assertLess(width, table.columnWidth(4) - 4)

    def test_any_other_model_of_the_structures_can_be_run(self):
        self.segmented()
        self.waitUntil(lambda: self.ui.otherButton.enabled)
        actions = {a.text: a for a in self.section.inputs.menuOfOthers().actions()}
        self.assertNotIn("Hippocampus, fast", actions)
        actions["Hippocampus, reference"].trigger()
        self.waitUntil(lambda: self.section.view.isOpen, 60, self.panel.said)
        self.waitUntil(lambda: not self.panel.busy)


class ReferenceModelTest(CompareCase):
    def test_the_reference_is_the_largest_other_model_for_the_same_structures(self):
        models = self.panel.modelList.packages()
        self.assertIs(ReferenceModel.referenceFor(models, FAST), models[REFERENCE])
        self.assertIsNone(ReferenceModel.referenceFor(models, REFERENCE))
        self.assertIsNone(ReferenceModel.referenceFor(models, "absent@1"))

    def test_without_a_model_s_result_the_button_says_why(self):
        self.panel.changed()
        self.assertFalse(self.ui.referenceButton.enabled)
        self.assertIn("not the result of a model", self.ui.referenceButton.toolTip)
        self.assertFalse(self.ui.compareButton.enabled)
        self.assertIn("Choose A and B", self.ui.compareButton.toolTip)


class SortingTest(CompareCase):
    def test_rows_sort_by_any_column_and_what_has_no_number_comes_last(self):
        rows = [
            {"structure": "b", "dice": 0.5},
            {"structure": "A", "dice": math.nan},
            {"structure": "c", "dice": 0.25},
        ]
        self.assertEqual(sortedOrder(rows, 0, False), [1, 0, 2])
        self.assertEqual(sortedOrder(rows, 1, False), [2, 0, 1])
        self.assertEqual(sortedOrder(rows, 1, True), [0, 2, 1])
