"""The section Segment: choices, estimates, one button, and a sentence for every bad input."""

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
from DistillSegPanel.Remedies import ownBox
from DistillSegPanel.Segments import isEmpty
from DistillSegPanel.State import MOVES, Machine, State, lookOf
from PanelCase import FAST, REFERENCE, SAMPLE, PanelCase, needsEngine
from vtk.util.numpy_support import vtk_to_numpy

from DistillSegLib.labels import LabelTable
from DistillSegLib.nomenclature import renamed
from DistillSegLib.package import load_package


class SegmentCase(PanelCase):
    def setUp(self):
        super().setUp()
        self.section = self.panel.segment
        self.ui = self.section.ui

    def volume(self, shape=(20, 30, 20), name="made", kind="vtkMRMLScalarVolumeNode"):
        voxels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
        node = slicer.util.addVolumeFromArray(voxels, name=name, nodeClassName=kind)
        self.settle()
        return node

    def crosshairToMiddle(self):
        """Into the structure, as a user does who holds Shift over it."""
        bounds = [0.0] * 6
        self.panel.parameters.inputVolume.GetRASBounds(bounds)
        position = [(low + high) / 2 for low, high in zip(bounds[::2], bounds[1::2])]
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        crosshair.SetCrosshairRAS(*position)
        return position

    def setModality(self, node, modality):
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        key = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
        hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(node), key, modality)

    def turned(self, how):
        """The sample with other axes, its voxels where they were or the patient turned."""
        node = self.sample(how)
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        toRas = slicer.util.arrayFromVTKMatrix(matrix)
        if how == "left-handed":
            voxels = slicer.util.arrayFromVolume(node)
            toRas[:3, 3] += toRas[:3, 0] * (voxels.shape[2] - 1)
            toRas[:3, 0] *= -1
            slicer.util.updateVolumeFromArray(node, voxels[:, :, ::-1].copy())
        else:
            turn = vtk.vtkTransform()
            turn.RotateWXYZ(12, 1, 2, 3)
            toRas = slicer.util.arrayFromVTKMatrix(turn.GetMatrix()) @ toRas
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(toRas))
        return node

    def volumesFound(self):
        return [found.volume_ml for found in self.panel.results.findings.bySegment.values()]

    def allSaid(self):
        return f"{self.panel.said}\n{self.panel.ui.detailsLabel.text}"

    def clickAnyway(self):
        button = self.panel.ui.otherButton
        self.assertEqual(button.text, "Segment anyway")
        button.click()
        self.waitUntil(lambda: not self.panel.busy, 60)
        self.settle()

    def refused(self, *words):
        """The button is off, and its reason, which the panel says too, has all the words."""
        self.settle()
        self.assertFalse(self.ui.segmentButton.enabled)
        for word in words:
            self.assertIn(word, self.panel.said)
        self.assertEqual(self.ui.segmentButton.toolTip, self.panel.said)

    def clickRemedy(self, text):
        button = self.panel.ui.remedyButton
        self.assertEqual(button.text, text)
        button.click()
        self.settle()


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


class BadInputTest(SegmentCase):
    def test_no_volume(self):
        self.refused("No volume is selected")

    def test_no_model(self):
        self.sample()
        self.panel.parameters.model = ""
        self.refused("No model is chosen")

    def test_a_model_that_is_not_on_this_computer(self):
        self.choose(model="liver-fast@2.0.0")
        self.refused("'liver-fast@2.0.0' is not on this computer")

    def test_an_empty_volume(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
        self.choose(node)
        self.refused("'hollow' holds no voxels")

    def test_a_volume_of_no_voxels(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "none")
        image = vtk.vtkImageData()
        image.SetDimensions(0, 0, 0)
        image.AllocateScalars(vtk.VTK_SHORT, 1)
        node.SetAndObserveImageData(image)
        self.choose(node)
        self.refused("'none' holds no voxels")

    def test_a_transform_that_flattens_the_volume(self):
        for name, column in (("flat", (0, 0, 0, 1)), ("parallel", (0, 1, 0, 1))):
            with self.subTest(name):
                node = self.sample(name)
                transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
                matrix = vtk.vtkMatrix4x4()
                for row in range(3):
                    matrix.SetElement(row, 0, column[row])
                transform.SetMatrixTransformToParent(matrix)
                node.SetAndObserveTransformNodeID(transform.GetID())
                self.choose(node)
                self.refused(f"'{name}' has a spacing or a transform of zero")
                self.section.region.onPlaceBox()
                self.assertIn("a transform of zero", self.panel.said)
                self.panel.header.actions["report"].trigger()
                self.assertIn("report is in the clipboard", self.panel.said)

    def test_a_label_map(self):
        self.choose(self.volume(name="labels", kind="vtkMRMLLabelMapVolumeNode"))
        self.refused("'labels' is a label map")

    def test_a_vector_volume(self):
        self.choose(self.volume((9, 9, 9, 3), "colour", "vtkMRMLVectorVolumeNode"))
        self.refused("3 numbers in each voxel", "Vector to Scalar Volume")

    def test_a_region_that_is_not_drawn(self):
        self.choose()
        self.panel.parameters.regionKind = RegionKind.ROI
        self.refused("No region is selected")
        self.panel.parameters.roi = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLMarkupsROINode", "box"
        )
        self.refused("'box' is not drawn yet")

    def test_a_foreign_segmentation_is_never_an_output(self):
        foreign = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "manual")
        foreign.GetSegmentation().AddEmptySegment("mine", "mine")
        self.choose()
        self.ui.outputSelector.setCurrentNode(foreign)
        self.refused("'manual' holds segments that DistillSeg did not make")
        self.ui.outputSelector.setCurrentNode(None)
        self.settle()
        self.assertTrue(self.ui.segmentButton.enabled)
        self.assertEqual(self.panel.said, "")

    def test_a_region_outside_of_the_volume(self):
        self.choose()
        roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
        roi.SetCenter(900, 0, 0)
        roi.SetSize(30, 30, 30)
        self.panel.parameters.roi = roi
        self.panel.parameters.regionKind = RegionKind.ROI
        self.refused("'box' lies outside 'sample'")

    def test_a_single_slice_is_warned_about_before_the_run_and_after(self):
        node = self.volume((1, 40, 40), "slice")
        self.choose(node)
        self.settle()
        self.assertIn("single slice", self.panel.said)
        self.assertTrue(self.ui.segmentButton.enabled)
        self.segment()
        self.assertIn("is ready after", self.panel.said)
        self.assertIn("single slice", self.panel.said)
        self.assertEqual(self.panel.state, State.IDLE)

    def test_a_file_that_does_not_say_how_the_patient_lies_is_warned_about(self):
        path = self.home / "no codes.nii"
        sitk.WriteImage(sitk.ReadImage(str(SAMPLE)), str(path))
        content = bytearray(path.read_bytes())
        content[252:256] = bytes(4)  # its qform and sform codes
        path.write_bytes(content)
        self.choose(slicer.util.loadVolume(str(path)))
        self.settle()
        self.assertIn("does not say how the patient lies", self.allSaid())
        self.assertTrue(self.ui.segmentButton.enabled)
        self.choose(self.sample())
        self.settle()
        self.assertNotIn("patient", self.allSaid())

    def test_strange_values_are_warned_about(self):
        node = self.sample()
        values = slicer.util.arrayFromVolume(node)
        values[:] = np.where(values > values.mean(), 1, 0)  # a mask, not an image
        slicer.util.arrayFromVolumeModified(node)
        self.choose(node)
        self.settle()
        self.assertIn("without a mask or rescaling", self.panel.said)
        self.assertTrue(self.ui.segmentButton.enabled)

    def test_another_modality_is_segmented_only_by_whoever_knows_better(self):
        node = self.sample()
        self.choose(node)
        self.panel.models.choose(FAST)  # not by itself: no proven model is for CT
        self.setModality(node, "CT")  # which nobody announces
        self.ui.segmentButton.click()
        self.assertFalse(self.panel.busy)
        self.refused("of modality CT", "trained on MR")
        self.screenshot("segment-other-modality")
        self.clickAnyway()
        self.assertIn("is ready after", self.panel.said)
        self.assertIn("of modality CT", self.panel.said)
        self.assertIn("forceScope=True", self.panel.logic.copyPython())
        self.panel.parameters.inputVolume = self.sample("second")
        self.assertFalse(self.panel.parameters.forceScope)  # said of the first volume alone
        self.panel.parameters.inputVolume = node
        self.refused("of modality CT")

    def test_hounsfield_units_tell_a_ct_from_an_mr_image(self):
        node = self.sample()
        values = slicer.util.arrayFromVolume(node)
        values[:] = np.linspace(-1000, 900, values.size).reshape(values.shape)
        slicer.util.arrayFromVolumeModified(node)
        self.panel.models.choose(FAST)
        self.choose(node)
        self.refused("Hounsfield units")

    def test_too_little_memory_is_said_before(self):
        with mock.patch("DistillSegLib.estimates.free_memory_bytes", lambda: 1 << 20):
            self.choose()
            self.refused("close other programs")

    def test_a_view_without_the_structure_is_reported_with_what_is_expected(self):
        node = self.volume((36, 50, 35), "noise")
        self.choose(node)
        self.segment()
        self.assertIn("Nothing was found", self.panel.said + self.panel.ui.detailsLabel.text)
        self.assertIn("crops around one hippocampus", self.allSaid())

    def test_where_nothing_is_found_the_views_stay_and_no_surface_is_made(self):
        self.choose(self.volume((36, 50, 35), "noise"))
        red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
        before = slicer.util.arrayFromVTKMatrix(red.GetSliceToRAS()).tolist()
        self.segment()
        output = self.panel.parameters.outputSegmentation
        self.assertTrue(isEmpty(output))
        self.assertEqual(slicer.util.arrayFromVTKMatrix(red.GetSliceToRAS()).tolist(), before)
        self.assertFalse(output.GetSegmentation().ContainsRepresentation(Outputs.SURFACE))

    def test_oblique_and_left_handed_volumes_are_segmented_as_the_straight_one(self):
        straight = self.sample("straight")
        self.choose(straight)
        self.segment()
        expected = self.volumesFound()
        for name in ("oblique", "left-handed"):
            with self.subTest(name):
                self.choose(self.turned(name))
                self.segment()
                for found, wanted in zip(self.volumesFound(), expected):
                    self.assertAlmostEqual(found, wanted, delta=0.05 * wanted)


class RemedyTest(SegmentCase):
    def test_a_bending_transform_is_hardened_in_a_copy(self):
        node = self.sample()
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "bend")
        grid = vtk.vtkImageData()
        grid.SetDimensions(4, 4, 4)
        grid.SetOrigin(-100, -100, -100)
        grid.SetSpacing(80, 80, 80)
        grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
        vtk_to_numpy(grid.GetPointData().GetScalars())[:] = 2.0
        bending = vtk.vtkBSplineTransform()
        bending.SetCoefficientData(grid)
        transform.SetAndObserveTransformFromParent(bending)
        node.SetAndObserveTransformNodeID(transform.GetID())
        self.choose(node)
        self.refused("which bends space")
        self.clickRemedy("Use a hardened copy")
        copy = self.panel.parameters.inputVolume
        self.assertIsNot(copy, node)
        self.assertIsNone(copy.GetParentTransformNode())
        self.assertEqual(node.GetParentTransformNode(), transform)
        self.assertTrue(self.ui.segmentButton.enabled, self.panel.said)

    def test_of_a_sequence_the_current_frame_is_used(self):
        first, second = self.sample("one"), self.sample("two")
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "beating")
        for number, node in enumerate((first, second)):
            sequence.SetDataNodeAtValue(node, str(number))
        self.panel.parameters.model = FAST
        self.ui.inputSelector1.setCurrentNode(sequence)
        self.refused("'beating' is a sequence of volumes")
        self.assertIs(self.ui.inputSelector1.currentNode(), sequence)
        self.clickRemedy("Use its current frame")
        frame = self.panel.parameters.inputVolume
        self.assertTrue(frame.IsA("vtkMRMLScalarVolumeNode"))
        self.assertIs(self.ui.inputSelector1.currentNode(), frame)
        self.assertTrue(self.ui.segmentButton.enabled, self.panel.said)

    def test_a_removed_sequence_is_let_go(self):
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "beating")
        self.settle()
        self.ui.inputSelector1.setCurrentNode(sequence)
        slicer.mrmlScene.RemoveNode(sequence)
        self.refused("No volume is selected")

    def test_a_large_volume_is_offered_the_model_s_box_at_the_crosshair(self):
        self.choose(self.large())
        self.refused("give the region", "hippocampus")
        self.screenshot("segment-offers-the-box")
        position = self.crosshairToMiddle()
        self.clickRemedy("Place the model's box")
        self.assertIn("lies at the crosshair", self.panel.said)
        roi = self.panel.parameters.roi
        self.assertEqual(self.panel.parameters.regionKind, RegionKind.MODEL_BOX)
        np.testing.assert_allclose(roi.GetCenter(), position, atol=1)
        self.assertTrue(self.ui.placeBoxButton.isVisibleTo(self.panel.widget))
        self.assertTrue(self.ui.segmentButton.enabled, self.panel.said)

    def test_a_crosshair_that_nobody_moved_is_no_choice(self):
        self.choose(self.large())
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        crosshair.SetCrosshairRAS(0, 0, 0)
        bounds = [0.0] * 6
        self.panel.parameters.inputVolume.GetRASBounds(bounds)
        position = [low + 0.4 * (high - low) for low, high in zip(bounds[::2], bounds[1::2])]
        for name in ("Red", "Green", "Yellow"):
            slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}").JumpSlice(*position)
        self.settle()
        self.clickRemedy("Place the model's box")
        np.testing.assert_allclose(self.panel.parameters.roi.GetCenter(), position, atol=1e-3)
        for words in ("where the slice views meet", "Hold Shift over the hippocampus"):
            self.assertIn(words, self.panel.said)
        self.screenshot("segment-box-at-the-views")
        for name in ("Red", "Green", "Yellow"):  # away from the volume, too
            slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}").JumpSlice(9999, 9999, 9999)
        self.ui.placeBoxButton.click()
        self.assertIn("in the middle of the volume", self.panel.said)

    def test_the_box_moves_with_another_click_and_leaves_the_user_s_alone(self):
        self.choose(self.large())
        mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "mine")
        mine.SetCenter(1, 2, 3)
        self.panel.parameters.roi = mine
        self.section.region.onPlaceBox()
        first = self.panel.parameters.roi
        self.section.region.onPlaceBox()
        self.assertIs(self.panel.parameters.roi, first)
        self.assertIs(ownBox(), first)
        self.assertIsNot(first, mine)
        self.assertEqual(tuple(mine.GetCenter()), (1, 2, 3))

    def test_dragging_the_box_renews_what_is_said(self):
        self.choose(self.large())
        self.section.region.onPlaceBox()
        self.settle()
        self.assertTrue(self.ui.segmentButton.enabled)
        self.panel.parameters.roi.SetSize(150, 150, 150)
        self.refused("give the region")

    def test_whoever_knows_better_segments_the_whole_volume(self):
        self.choose(self.large())
        self.refused("give the region")
        self.clickAnyway()
        self.assertIn("is ready after", self.panel.said)
        self.assertTrue(self.ui.segmentButton.enabled)  # and again, for these choices

    def test_an_absent_engine_is_installed_with_one_click(self):
        self.choose()
        declined = Install.InstallError("Without it no model runs.", "declined", "pip install x")

        def refuse():
            raise declined

        with mock.patch.object(self.panel.work, "_install", refuse):
            self.ui.segmentButton.click()
        self.assertEqual(self.panel.state, State.FAILED)
        self.assertEqual(self.panel.said, "Without it no model runs.")
        self.assertEqual(self.panel.ui.remedyButton.text, "Install the engine")
        self.panel.ui.detailsButton.click()
        self.assertIn("pip install x", self.panel.ui.detailsLabel.text)
        self.screenshot("segment-without-engine")
        self.assertTrue(self.ui.segmentButton.enabled)
        self.panel.ui.remedyButton.click()  # it is there in truth
        self.assertIn("is installed", self.panel.said)


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
