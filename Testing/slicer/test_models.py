"""The chooser of models: search, filters, card, sample, adding and removing packages."""

from __future__ import annotations

import shutil
from unittest import mock

import qt
import slicer
from test_panel import FAST, REFERENCE, PanelCase, needsEngine

from DistillSegLib.places import resources

PACKAGE = resources() / "Models" / "hippocampus-fast-1.0.0.distillseg"


class ModelsTest(PanelCase):
    def setUp(self):
        super().setUp()
        self.ui = self.panel.models.ui

    def rows(self):
        return [self.ui.modelsList.item(n).text() for n in range(self.ui.modelsList.count)]

    def test_the_smallest_model_is_chosen_when_the_module_opens(self):
        self.assertEqual(self.panel.parameters.model, FAST)
        self.assertEqual(self.ui.modelsList.currentRow, 0)
        self.screenshot("models")
