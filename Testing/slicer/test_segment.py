"""The section Segment: states, choices, estimates and one button."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import qt
import SimpleITK as sitk
import slicer
import vtk
from DistillSegPanel import ConfidenceMap, Install, Outputs
from DistillSegPanel.Calls import Call
from DistillSegPanel.Parameters import RegionKind
from DistillSegPanel.State import MOVES, Machine, State, lookOf
from PanelCase import FAST, REFERENCE, SAMPLE, needsEngine
from SegmentCase import SegmentCase

from DistillSegLib.labels import LabelTable
from DistillSegLib.nomenclature import renamed
from DistillSegLib.package import load_package


class StateTest(SegmentCase):
    def test_only_moves_of_the_table_are_possible(self):
        for state in State:
            for other in State:
                machine = Machine()
                machine.state = state
                if other in MOVES[state]:
                    machine.to(other)
                    self.assertIs(machine.state, other)
                else:
                    with self.assertRaises(RuntimeError):
                        machine.to(other)

    def test_a_run_cannot_begin_twice_and_cancel_is_seen(self):
        self.assertFalse(Machine().isActive)
        self.assertEqual(lookOf(State.RUNNING).button, "Cancel")
        self.assertFalse(lookOf(State.CANCELLING).isEnabled)
        self.assertFalse(lookOf(State.IDLE, "No volume.").isEnabled)
        self.assertEqual(lookOf(State.IDLE, "No volume.").toolTip, "No volume.")
        self.assertFalse(lookOf(State.FAILED, "", isBusy=True).isEnabled)
        self.assertTrue(lookOf(State.FAILED).isEnabled)


class ChoicesTest(SegmentCase):
    def test_the_volume_behind_the_views_is_the_default(self):
        self.volume(name="first")
        second = self.sample("second")  # loading shows it
        self.panel.parameters.inputVolume = None
        self.leaveModule()
        self.openModule("DistillSeg")
        self.assertIs(self.ui.inputSelector1.currentNode(), second)

    def test_a_volume_loaded_while_the_module_is_open_is_chosen(self):
        self.assertIsNone(self.panel.parameters.inputVolume)
        node = self.sample()
        self.settle()
        self.assertIs(self.panel.parameters.inputVolume, node)
        self.assertIn("35 × 50 × 36 voxels of 1 × 1 × 1 mm", self.ui.inputSelector1.toolTip)

    def test_one_row_for_a_model_of_one_channel(self):
        self.choose()
        self.assertTrue(self.ui.inputSelector1.isVisibleTo(self.panel.widget))
        self.assertFalse(self.ui.inputSelector2.isVisibleTo(self.panel.widget))
        self.assertEqual(self.ui.inputLabel1.text, "Input volume:")

    def test_the_estimate_is_there_before_the_run(self):
        self.choose()
        self.assertIn("not measured here yet", self.ui.estimateLabel.text)
        self.assertRegex(self.ui.estimateLabel.text, r"≈ \d+\.\d s, \d+ MB")

    def test_choices_are_kept_in_the_parameter_node(self):
        self.choose()
        self.ui.threadsBox.value = 3
        self.assertEqual(self.panel.parameters.threads, 3)
        roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "mine")
        self.panel.parameters.regionKind = RegionKind.ROI
        self.ui.roiSelector.setCurrentNode(roi)
        self.assertIs(self.panel.parameters.roi, roi)


@needsEngine
class RunTest(SegmentCase):
    def test_the_sample_is_segmented_in_the_model_s_box(self):
        self.choose(self.large())
        self.crosshairToMiddle()
        self.section.region.onPlaceBox()
        self.segment()
        node = self.panel.parameters.outputSegmentation
        found = self.panel.results.findings.bySegment
        self.assertTrue(all(1 < f.volume_ml < 2.5 for f in found.values()), found)
        self.assertIn("roiNode=", self.panel.logic.copyPython())
        self.assertEqual(Outputs.modelOf(node), FAST)
        self.screenshot("segment-in-the-box")

    def test_ctrl_return_segments_and_cancels(self):
        self.choose()
        self.section.onShortcut()
        self.assertTrue(self.panel.busy)
        self.assertEqual(self.ui.segmentButton.text, "Cancel")
        self.section.onShortcut()
        self.assertEqual(self.panel.state, State.CANCELLING)
        self.section.onShortcut()  # nothing more
        self.waitUntil(lambda: not self.panel.busy, 10)
        self.assertEqual(self.panel.said, "Cancelled; nothing was written.")
        self.assertEqual(self.nodes("vtkMRMLSegmentationNode"), [])

    def test_in_mid_run_it_tells_progress_and_takes_no_choices(self):
        self.startLong()
        self.waitFor(0.5)
        self.assertTrue(self.panel.busy)
        self.assertFalse(self.ui.inputSelector1.enabled)
        self.assertFalse(self.panel.models.ui.modelsList.enabled)
        self.assertFalse(self.panel.models.ui.sampleButton.enabled)
        self.assertIn("Another task", self.panel.models.ui.sampleButton.toolTip)
        self.assertGreater(self.ui.progressBar.value, 0)
        self.assertIn("%", self.ui.progressBar.text)
        self.assertIn("…", self.panel.said)
        self.screenshot("segment-running")
        self.ui.segmentButton.click()
        self.waitUntil(lambda: not self.panel.busy, 10)

    def test_cancel_stops_within_half_a_second(self):
        import time

        self.startLong()
        before = time.perf_counter()
        self.ui.segmentButton.click()
        self.waitUntil(lambda: not self.panel.busy, 10)
        self.assertLess(time.perf_counter() - before, 0.8)  # 0.5, and the test's own loop
        self.assertEqual(self.panel.state, State.IDLE)

    def test_the_next_run_updates_the_same_output(self):
        self.choose()
        self.segment()
        first = self.nodes("vtkMRMLSegmentationNode")
        self.segment()
        self.assertEqual(self.nodes("vtkMRMLSegmentationNode"), first)
        self.assertIn("on this computer", self.ui.estimateLabel.text)

    def test_an_edited_output_stays_beside_the_next(self):
        self.choose()
        self.segment()
        node = self.panel.parameters.outputSegmentation
        node.GetSegmentation().RemoveSegment("DistillSeg_1")
        self.segment()
        other = self.panel.parameters.outputSegmentation
        self.assertIsNot(other, node)
        self.assertEqual(node.GetSegmentation().GetNumberOfSegments(), 1)

    def test_another_patient_or_model_gets_an_output_of_its_own(self):
        self.choose()
        self.segment()
        first = self.panel.parameters.outputSegmentation
        self.ui.inputSelector1.setCurrentNode(self.sample("second"))
        self.assertIsNone(self.panel.parameters.outputSegmentation)
        self.segment()
        second = self.panel.parameters.outputSegmentation
        self.panel.models.choose(REFERENCE)
        self.segment()
        third = self.panel.parameters.outputSegmentation
        self.assertEqual(len({first.GetID(), second.GetID(), third.GetID()}), 3)
        self.assertTrue(
            all(n.GetSegmentation().GetNumberOfSegments() == 2 for n in (first, second))
        )

    def test_a_volume_chosen_in_mid_run_gets_an_output_of_its_own(self):
        first, second = self.sample("first"), self.sample("second")
        self.choose(first)
        self.ui.segmentButton.click()
        self.assertTrue(self.panel.busy)
        self.section.inputs.choose(second)
        self.waitUntil(lambda: not self.panel.busy)
        self.settle()
        self.assertIsNone(self.panel.parameters.outputSegmentation)
        self.segment()
        outputs = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        shown = [node for node in outputs if not node.GetHideFromEditors()]
        self.assertEqual([Outputs.volumeOf(node) for node in shown], [first, second])

    def test_show_3d_follows_the_user(self):
        self.choose()
        self.segment()
        node = self.panel.parameters.outputSegmentation
        surface = "Closed surface"
        self.assertTrue(node.GetSegmentation().ContainsRepresentation(surface))
        self.ui.show3DButton.click()
        self.assertFalse(self.panel.parameters.show3D)
        self.ui.inputSelector1.setCurrentNode(self.sample("second"))
        self.segment()
        other = self.panel.parameters.outputSegmentation
        self.assertFalse(other.GetSegmentation().ContainsRepresentation(surface))

    def test_copy_python_repeats_the_call(self):
        node = self.sample()
        self.choose(node)
        self.segment()
        text = self.panel.logic.copyPython()
        self.assertEqual(self.panel.work.lastCall, Call((node,), FAST))
        names = {"slicer": slicer}
        exec(text, names)
        self.assertIs(names["segmentationNode"], self.panel.parameters.outputSegmentation)
        self.panel.header.actions["python"].trigger()
        self.assertEqual(qt.QApplication.clipboard().text(), text)


@needsEngine
class AdvancedTest(SegmentCase):
    def setUp(self):
        super().setUp()
        self.ui.advancedButton.collapsed = False
        self.addCleanup(setattr, self.ui.advancedButton, "collapsed", True)

    def pick(self, box, text):
        box.setCurrentText(text)
        box.activated.emit(box.currentIndex)

    def names(self):
        segmentation = self.panel.parameters.outputSegmentation.GetSegmentation()
        count = segmentation.GetNumberOfSegments()
        return [segmentation.GetNthSegment(number).GetName() for number in range(count)]

    def specks(self):
        """A volume with the structure twice, so that the network finds two parts of each."""
        image = sitk.ReadImage(str(SAMPLE))
        voxels = np.concatenate([sitk.GetArrayFromImage(image)] * 2, axis=2)
        node = slicer.util.addVolumeFromArray(voxels, name="two")
        self.settle()
        return node

    def test_segments_are_named_by_the_scheme_that_is_chosen(self):
        self.choose()
        self.segment()
        own = ["Hippocampus, anterior", "Hippocampus, posterior"]
        self.assertEqual(self.names(), own)
        self.pick(self.ui.namingBox, "Standard (DICOM)")
        standard = LabelTable(
            tuple(
                replace(label, terminology=label.terminology.replace("^Hippocampus", "^Hippo"))
                for label in load_package("hippocampus-fast").manifest.labels
            )
        )
        self.assertEqual(
            [each.name for each in renamed(standard, "standard")],
            ["Hippo, anterior", "Hippo, posterior"],
        )
        self.segment()
        self.assertEqual(self.names(), own)  # DICOM's own words for these two
        self.assertIn('naming="standard"', self.panel.logic.copyPython())
        self.assertEqual(len(self.nodes("vtkMRMLSegmentationNode")), 2)  # the same output and raw

    def test_cleaning_up_is_reversible(self):
        self.choose(self.specks())
        self.panel.segment.onAnyway()
        self.waitUntil(lambda: not self.panel.busy, 60)
        self.settle()
        self.waitUntil(lambda: self.panel.results.findings.isCurrent, 20)
        before = self.volumesFound()
        self.pick(self.ui.cleanUpBox, "Keep the largest part of each")
        self.segment()
        node = self.panel.parameters.outputSegmentation
        after = self.volumesFound()
        self.assertLess(sum(after), 0.8 * sum(before))
        self.assertEqual(Outputs.editedSegments(node), [])  # no work of the user's
        nodes = self.nodes("vtkMRMLSegmentationNode")
        self.segment()
        self.assertEqual(self.nodes("vtkMRMLSegmentationNode"), nodes)
        Outputs.reset(node)
        self.waitUntil(lambda: self.panel.results.findings.isCurrent, 20)
        self.settle()
        self.waitUntil(lambda: self.panel.results.findings.isCurrent, 20)
        for found, wanted in zip(self.volumesFound(), before):
            self.assertAlmostEqual(found, wanted, places=6)

    def test_a_confidence_map_is_a_volume_beside_the_result(self):
        volume = self.sample()
        self.choose(volume)
        self.ui.confidenceBox.click()
        self.segment()
        output = self.panel.parameters.outputSegmentation
        node = ConfidenceMap.mapOf(output)
        values = slicer.util.arrayFromVolume(node)
        self.assertEqual(values.shape, slicer.util.arrayFromVolume(volume).shape)
        self.assertTrue(0 < values.min() < 0.9 and 0.9 < values.max() <= 1, values.min())
        matrices = [vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()]
        for each, matrix in zip((volume, node), matrices):
            each.GetIJKToRASMatrix(matrix)
        np.testing.assert_allclose(*map(slicer.util.arrayFromVTKMatrix, matrices))
        display = node.GetDisplayNode()
        self.assertIn(display.GetColorNode().GetName(), ConfidenceMap.COLORS)
        self.assertEqual(display.GetWindowLevelMax(), 1.0)
        self.assertLess(display.GetWindowLevelMin(), 0.95)
        self.assertIs(self.panel.parameters.inputVolume, volume)
        self.assertIn(f"the volume '{node.GetName()}'", self.panel.said)
        slicer.util.setSliceViewerLayers(background=volume, foreground=node, foregroundOpacity=0.5)
        self.settle()
        self.screenshot("segment-confidence")
        volumes = self.nodes("vtkMRMLScalarVolumeNode")
        self.segment()
        self.assertEqual(self.nodes("vtkMRMLScalarVolumeNode"), volumes)  # renewed, not added

    def test_the_engine_is_installed_from_a_folder_of_wheels(self):
        asked = []
        found = Install.state()

        def ensure(*, wheelFolder=None):
            asked.append(wheelFolder)
            return found

        with (
            mock.patch.object(qt.QFileDialog, "getExistingDirectory", lambda *_: str(self.home)),
            mock.patch("DistillSegPanel.Remedies.ensure", ensure),
        ):
            self.ui.wheelsButton.click()
        self.assertEqual(asked, [str(self.home)])
        self.assertIn(f"onnxruntime {found.version} is installed", self.panel.said)

    def test_a_folder_without_wheels_is_named(self):
        def ask(_question, *_titles):
            return True

        with (
            mock.patch.object(qt.QFileDialog, "getExistingDirectory", lambda *_: str(self.home)),
            mock.patch.object(slicer.util, "confirmOkCancelDisplay", ask),
            mock.patch.object(Install, "ENGINE", "distillseg_absent_engine"),
            mock.patch.object(Install, "REQUIREMENT", "distillseg_absent_engine>=1.0"),
            mock.patch.object(Install, "_isTesting", lambda: False),
            mock.patch.object(slicer.util, "pip_install", self.pip),
        ):
            self.ui.wheelsButton.click()
        self.assertIn(f"in {self.home}; get the wheel that fits", self.panel.said)
        self.panel.ui.detailsButton.click()
        self.assertIn("--no-index", self.panel.ui.detailsLabel.text)

    def pip(self, arguments):
        """The real one, of a Python that is not Slicer's where the test runs outside of it."""
        python = shutil.which("PythonSlicer") or sys.executable
        done = subprocess.run(
            [python, "-m", "pip", "install", *arguments], capture_output=True, text=True
        )
        print(done.stdout, done.stderr)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, "pip")
