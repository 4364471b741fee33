"""The panel as a user meets it: open, sample, Segment, look; and what may happen in mid-run."""

from __future__ import annotations

import slicer
from PanelCase import FAST, REFERENCE, PanelCase, needsEngine


@needsEngine
class PanelTest(PanelCase):
    def test_a_click_segments_what_is_chosen(self):
        self.choose()
        self.segment()
        node = self.panel.parameters.outputSegmentation
        self.assertEqual(node.GetSegmentation().GetNumberOfSegments(), 2)
        self.waitUntil(lambda: self.panel.results.findings.isCurrent)
        self.screenshot("panel-segmented")
