"""A panel whose section Compare is open, with the bundled sample to compare on."""

from __future__ import annotations

import slicer
from PanelCase import FAST, REFERENCE, SAMPLE, PanelCase

import DistillSeg

DistillSeg.findLibrary()

from DistillSegPanel import CompareLayout  # noqa: E402

from DistillSegLib import Segmenter  # noqa: E402
from DistillSegLib.comparison import compare  # noqa: E402


class CompareCase(PanelCase):
    def setUp(self):
        super().setUp()
        self.section = self.panel.comparison
        self.ui = self.section.ui
        self.panel.ui.comparisonSection.collapsed = False
        self.panel.ui.editingSection.collapsed = True  # its keys would come first
        self.addCleanup(self.section.view.forget)

    def segmented(self):
        """The fast model's result on the sample."""
        self.choose()
        self.segment()
        self.waitUntil(lambda: self.panel.parameters.compareA is not None)
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

    def expected(self):
        """What the library says of both models on the sample."""
        results = [
            Segmenter(model.replace("@", "-")).segment(SAMPLE) for model in (FAST, REFERENCE)
        ]
        return compare(*results)

    def column(self, number):
        table = self.ui.metricsTable
        return [table.item(row, number).text() for row in range(table.rowCount)]

    def offsets(self):
        return [node.GetSliceOffset() for node in CompareLayout.sliceNodes()]

    def compareButton(self, a, b):
        self.panel.parameters.compareA, self.panel.parameters.compareB = a, b
        self.waitUntil(lambda: self.ui.compareButton.enabled)
        self.ui.compareButton.click()
        self.waitUntil(lambda: not self.panel.busy, 60)
        slicer.app.processEvents()
