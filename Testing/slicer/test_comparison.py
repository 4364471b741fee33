"""The section Compare: fast against reference model on the bundled sample, by clicks."""

from __future__ import annotations

import csv
import math

import numpy as np
import qt
import SimpleITK as sitk
import slicer
import vtk
from PanelCase import FAST, REFERENCE, SAMPLE, PanelCase, needsEngine
from SlicerCase import SlicerCase

import DistillSeg

DistillSeg.findLibrary()

from DistillSegPanel import CompareLayout, ComparisonTable, DisagreementPlot, Segments  # noqa: E402
from DistillSegPanel.MetricsTable import sortedOrder  # noqa: E402
from DistillSegPanel.WorstSlices import WorstSlices  # noqa: E402

from DistillSegLib import Segmenter  # noqa: E402
from DistillSegLib.comparison import compare  # noqa: E402


class CompareCase(PanelCase):
    def setUp(self):
        super().setUp()
        self.section = self.panel.comparison
        self.ui = self.section.ui
        self.panel.ui.comparisonSection.collapsed = False
        self.addCleanup(self.leaveViews)

    def leaveViews(self):
        if self.section.view.isOpen:
            self.section.view.close()

    def segmented(self):
        """The fast model's result on the sample."""
        self.choose()
        self.segment()
        slicer.app.processEvents()
        return self.panel.parameters.outputSegmentation

    def runReference(self):
        """The one click, and what follows."""
        node = self.segmented()
        self.waitUntil(lambda: self.ui.referenceButton.enabled)
        self.ui.referenceButton.click()
        self.waitUntil(lambda: self.section.view.isOpen, 60, self.panel.said)
        self.waitUntil(lambda: not self.panel.busy)
        slicer.app.processEvents()
        return node

    def columns(self, column):
        return [self.ui.metricsTable.item(row, column).text() for row in range(2)]


@needsEngine
class ComparisonTest(CompareCase):
    def test_one_click_runs_the_reference_and_shows_both_side_by_side(self):
        a = self.runReference()
        b = self.panel.parameters.compareB
        self.assertEqual((self.panel.parameters.compareA, b is a), (a, False))
        self.assertTrue(CompareLayout.isShown())
        expected = compare(
            *(Segmenter(m.replace("@", "-")).segment(self.image()) for m in (FAST, REFERENCE))
        )
        rows = self.section.table.rows
        for row, known in zip(rows, expected.rows):
            self.assertEqual(row["structure"], known.structure)
            self.assertAlmostEqual(row["dice"], known.dice, places=9)
            self.assertAlmostEqual(row["worst_slice"], known.worst_slice)
        self.assertEqual(self.columns(1), sorted(f"{row.dice:.3f}" for row in expected.rows))
        self.screenshot("compare")
        self.screenshot("compare-section", self.panel.ui.comparisonSection)

    def image(self):
        return sitk.ReadImage(str(SAMPLE))
