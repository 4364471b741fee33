"""The panel as a user meets it: open, sample, Segment, look; and what may happen in mid-run."""

from __future__ import annotations

import gc
import re
import threading
import time
from pathlib import Path
from unittest import mock

import qt
import slicer
import vtk
from DistillSegPanel.Calls import Request
from DistillSegPanel.Parameters import RegionKind
from DistillSegPanel.State import State
from DistillSegPanel.SupportText import supportText
from PanelCase import FAST, REFERENCE, PanelCase, needsEngine

import DistillSeg
from DistillSegLib.catalogue import list_packages
from DistillSegLib.places import resources


class FrameTest(PanelCase):
    def test_the_header_says_what_is_ready(self):
        text = self.panel.ui.engineLabel.text
        count = f"{len(list_packages())} models"
        for words in ("Ready", count, "onnxruntime", "thread", "works offline"):
            self.assertIn(words, text)

    @needsEngine
    def test_the_header_says_what_is_taken_of_the_disk(self):
        megabytes = sum(path.stat().st_size for path in (resources() / "Models").iterdir()) / 1e6
        models, engine = re.findall(r"(\d+) MB", self.panel.ui.engineLabel.toolTip)
        self.assertAlmostEqual(int(models), megabytes, delta=0.6)
        self.assertTrue(10 < int(engine) < 200, engine)
        self.assertIn(f"models {megabytes:.1f} MB, engine {engine}", supportText(self.panel))

    def test_a_closed_scene_keeps_the_choice_of_a_model(self):
        slicer.mrmlScene.Clear()
        self.settle()
        self.assertEqual(self.panel.parameters.model, FAST)  # nobody had chosen one
        self.panel.models.choose(REFERENCE)
        slicer.mrmlScene.Clear()
        self.settle()
        self.assertEqual(self.panel.parameters.model, REFERENCE)

    def test_the_header_says_how_many_threads_a_run_is_given(self):
        self.panel.parameters.threads = 3
        self.assertIn("3 threads", self.panel.ui.engineLabel.text)
        self.panel.parameters.threads = 0
        with mock.patch("DistillSegPanel.Calls.physical_cores", lambda: 8):
            self.panel.changed()
            self.assertIn("7 threads", self.panel.ui.engineLabel.text)
        with mock.patch("DistillSegPanel.Calls.physical_cores", lambda: 0):  # nobody knows
            self.panel.changed()
            self.assertNotIn("thread", self.panel.ui.engineLabel.text)

    def test_the_folder_of_added_models_is_made_and_opened(self):
        opened = []
        with mock.patch.object(qt.QDesktopServices, "openUrl", opened.append):
            self.panel.header.actions["folder"].trigger()
        self.assertEqual(Path(opened[0].toLocalFile()), self.home / "Models")
        self.assertTrue((self.home / "Models").is_dir())

    def test_a_folder_that_cannot_be_made_is_named(self):
        (self.home / "Models").write_text("a file in its place")
        with mock.patch.object(qt.QDesktopServices, "openUrl", self.fail):
            self.panel.header.actions["folder"].trigger()
        self.assertIn(f"'{self.home / 'Models'}' cannot be made", self.panel.said)

    def test_the_documentation_is_the_page_of_the_module(self):
        opened = []
        with mock.patch.object(qt.QDesktopServices, "openUrl", opened.append):
            self.panel.header.actions["documentation"].trigger()
        self.assertIn("distillseg", opened[0].toString().lower())

    def test_no_section_is_wider_than_the_panel(self):
        self.assertLessEqual(self.panel.widget.minimumSizeHint.width(), 400)

    def test_the_status_shows_details_and_a_remedy_only_where_there_are_any(self):
        ui, clicks = self.panel.ui, []
        self.panel.say("Something.", "warning", "Why.", "Do it", lambda: clicks.append(1))
        self.assertTrue(ui.remedyButton.isVisibleTo(self.panel.widget))
        self.assertFalse(ui.detailsLabel.isVisibleTo(self.panel.widget))
        ui.detailsButton.click()
        self.assertTrue(ui.detailsLabel.isVisibleTo(self.panel.widget))
        ui.remedyButton.click()
        self.assertEqual(clicks, [1])
        self.panel.say("All is well.")
        for widget in (ui.remedyButton, ui.detailsButton, ui.detailsLabel):
            self.assertFalse(widget.isVisibleTo(self.panel.widget))

    def test_the_report_names_no_patient(self):
        self.choose(self.sample("Jane Doe"))
        self.panel.header.actions["report"].trigger()
        text = qt.QApplication.clipboard().text()
        for words in (
            "DistillSeg: ",
            "Slicer: ",
            FAST,
            "SHA-256",
            "35 50 36 voxels",
            "Status: IDLE",
        ):
            self.assertIn(words, text)
        self.assertNotIn("Jane", text)
        self.assertNotIn(str(self.home), text)

    def test_a_section_that_fails_keeps_no_other_from_its_work(self):
        def fail():
            raise ValueError("a fault of the program")

        with (
            mock.patch.object(self.panel.header, "update", fail),
            self.assertLogs("DistillSegPanel.Panel", "ERROR") as logged,
        ):
            self.choose()
            self.panel.changed()
            self.assertEqual(self.panel.segment.ui.inputSelector1.currentNode().GetName(), "sample")
            self.assertIn("Something unexpected happened (ValueError)", self.panel.said)
            self.assertIn("a fault of the program", self.panel.ui.detailsLabel.text)
        self.assertEqual(len(logged.records), 1)  # not at every change
        self.panel.faults.clear()

    def test_leaving_and_coming_back_keeps_the_choices(self):
        node = self.sample()
        self.choose(node, REFERENCE)
        self.leaveModule()
        self.openModule("DistillSeg")
        self.assertEqual(self.panel.parameters.model, REFERENCE)
        self.assertIs(self.panel.parameters.inputVolume, node)


class OldSlicerTest(PanelCase):
    def test_a_slicer_that_is_too_old_says_so_instead_of_failing(self):
        self.assertEqual(DistillSeg.tooOld(), "")
        with mock.patch.object(DistillSeg, "OLDEST_PYTHON", (9, 0)):
            widget = DistillSeg.DistillSegWidget()
            self.addCleanup(widget.parent.deleteLater)
            widget.enter(), widget.exit()
            DistillSeg.registerLayout()
        labels = slicer.util.findChildren(widget.parent, className="QLabel")
        self.assertIn("needs 3D Slicer 5.10 or later", " ".join(label.text for label in labels))
        self.assertIsNone(widget.panel)
        widget.cleanup()


@needsEngine
class FirstResultTest(PanelCase):
    def test_two_clicks_from_the_open_module_to_a_result_in_3d(self):
        before = time.perf_counter()
        self.panel.models.ui.sampleButton.click()
        self.settle()
        self.segment()
        seconds = time.perf_counter() - before
        node = self.panel.parameters.outputSegmentation
        self.assertEqual(node.GetSegmentation().GetNumberOfSegments(), 2)
        self.assertTrue(node.GetSegmentation().ContainsRepresentation("Closed surface"))
        self.assertIn("is ready after", self.panel.said)
        self.assertLess(seconds, 60)
        self.screenshot("panel-segmented")

    def test_a_closed_scene_leaves_no_volume_in_memory(self):
        volumeNode = self.sample()
        self.choose(volumeNode)
        self.segment()
        self.assertIsNotNone(self.panel.work.lastCall, self.panel.said)
        known = vtk.vtkWeakReference()
        known.Set(volumeNode)
        del volumeNode
        self.leaveModule()
        slicer.mrmlScene.Clear()
        self.settle()
        gc.collect()
        self.assertIsNone(known.Get())

    def test_switching_modules_lets_it_go_on(self):
        self.choose()
        left, run = threading.Event(), Request.run
        self.addCleanup(left.set)

        def later(request, *heard):  # a fast worker would be done before the module is left
            left.wait()
            return run(request, *heard)

        with mock.patch.object(Request, "run", later):
            self.panel.segment.ui.segmentButton.click()
        self.leaveModule()
        self.assertTrue(self.panel.busy)
        left.set()
        self.waitUntil(lambda: not self.panel.busy, 60)
        self.openModule("DistillSeg")
        self.assertIsNotNone(self.panel.parameters.outputSegmentation)
        self.waitUntil(lambda: self.panel.results.findings.isCurrent, 20)

    def test_all_who_asked_are_told_of_the_result(self):
        told = []
        self.panel.onSegmented.append(told.append)
        self.addCleanup(self.panel.onSegmented.remove, told.append)
        self.choose()
        self.segment()
        self.assertEqual(told, [self.panel.parameters.outputSegmentation])

    def test_dark_theme(self):
        palette, dark = slicer.app.palette(), qt.QPalette()
        for role, grey in (
            (qt.QPalette.Window, 45),
            (qt.QPalette.Base, 30),
            (qt.QPalette.AlternateBase, 45),
            (qt.QPalette.Button, 55),
            (qt.QPalette.WindowText, 230),
            (qt.QPalette.Text, 230),
            (qt.QPalette.ButtonText, 230),
            (qt.QPalette.PlaceholderText, 140),
        ):
            dark.setColor(role, qt.QColor(grey, grey, grey))
        for role in (qt.QPalette.WindowText, qt.QPalette.Text, qt.QPalette.ButtonText):
            dark.setColor(qt.QPalette.Disabled, role, qt.QColor(120, 120, 120))
        qt.QApplication.setPalette(dark)
        try:
            self.choose()
            self.segment()
            self.screenshot("panel-dark")
        finally:
            qt.QApplication.setPalette(palette)


@needsEngine
class MidRunTest(PanelCase):
    def setUp(self):
        super().setUp()
        self.volume = self.startLong()

    def ended(self):
        self.waitUntil(lambda: not self.panel.busy, 20)
        self.settle()

    def test_a_second_click_cancels_and_starts_nothing(self):
        button = self.panel.segment.ui.segmentButton
        button.click()
        button.click()
        self.assertEqual(self.panel.state, State.CANCELLING)
        self.ended()
        self.assertEqual(self.nodes("vtkMRMLSegmentationNode"), [])
        self.assertEqual(self.panel.state, State.IDLE)

    def test_closing_the_scene(self):
        slicer.mrmlScene.Clear()
        self.ended()
        self.assertEqual(self.nodes("vtkMRMLSegmentationNode"), [])
        self.assertIsNone(self.panel.parameters.inputVolume)
        self.assertEqual(self.panel.state, State.IDLE)
        self.assertEqual(self.panel.segment.ui.segmentButton.text, "Segment")

    def test_deleting_the_volume(self):
        slicer.mrmlScene.RemoveNode(self.volume)
        self.ended()
        self.assertEqual(self.nodes("vtkMRMLSegmentationNode"), [])
        self.assertEqual(self.panel.state, State.IDLE)
        self.assertFalse(self.panel.segment.ui.segmentButton.enabled)

    def test_reloading_the_module(self):
        self.keepModules()
        widget = slicer.util.getModuleWidget("DistillSeg")
        widget.onReload()
        slicer.app.processEvents()
        panel = slicer.util.getModuleWidget("DistillSeg").panel
        self.assertIsNot(panel, self.panel)
        self.assertFalse(self.panel.busy)
        self.assertEqual(self.panel.sections, [])
        self.assertEqual(self.nodes("vtkMRMLSegmentationNode"), [])
        self.assertIsNone(self.panel.parameters)
        self.panel = panel
        self.openModule("DistillSeg")
        panel.parameters.forceScope = False
        panel.parameters.model = FAST
        panel.parameters.inputVolume = self.sample()
        self.segment()
        self.assertIsNotNone(panel.parameters.outputSegmentation)

    def test_quitting(self):
        """What the application does at its end: the panel's cleanup is called."""
        self.keepModules()
        before = time.perf_counter()
        self.panel.cleanup()
        self.assertLess(time.perf_counter() - before, 6)
        self.assertFalse(self.panel.busy)


class SavedTest(PanelCase):
    def test_a_saved_scene_brings_all_choices_back(self):
        node = self.sample("kept")
        self.choose(node, REFERENCE)
        roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
        roi.SetCenter(0, 0, 0)
        roi.SetSize(40, 50, 40)
        parameters = self.panel.parameters
        parameters.roi = roi
        parameters.regionKind = RegionKind.ROI
        parameters.threads = 2
        path = str(self.home / "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        self.settle()
        self.assertIsNone(self.panel.parameters.inputVolume)
        self.assertEqual(self.panel.parameters.threads, 0)
        slicer.util.loadScene(path)
        self.settle()
        parameters, ui = self.panel.parameters, self.panel.segment.ui
        self.assertEqual(parameters.model, REFERENCE)
        self.assertEqual(ui.inputSelector1.currentNode().GetName(), "kept")
        self.assertEqual(ui.roiSelector.currentNode().GetName(), "box")
        self.assertEqual(ui.regionBox.currentText, "ROI")
        self.assertEqual(ui.threadsBox.value, 2)
        row = self.panel.models.ui.modelsList.currentRow
        self.assertEqual(self.panel.models.shown[row].model, REFERENCE)

    @needsEngine
    def test_a_saved_result_is_shown_again(self):
        self.choose()
        self.segment()
        path = str(self.home / "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(path)
        self.settle()
        self.waitUntil(lambda: self.panel.results.findings.isCurrent, 20)
        self.settle()
        self.assertEqual(self.panel.results.table.rowCount, 2)
        count = len(self.nodes("vtkMRMLSegmentationNode"))
        self.segment()
        self.assertEqual(len(self.nodes("vtkMRMLSegmentationNode")), count)  # its own, again
