"""The section Segment: a sentence for every bad input, and a button that mends it."""

from __future__ import annotations

from unittest import mock

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from DistillSegPanel import Install, Outputs
from DistillSegPanel.Parameters import RegionKind
from DistillSegPanel.Remedies import ownBox
from DistillSegPanel.Segments import isEmpty
from DistillSegPanel.State import State
from PanelCase import FAST, SAMPLE
from SegmentCase import SegmentCase
from vtk.util.numpy_support import vtk_to_numpy


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
