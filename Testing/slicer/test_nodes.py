"""Volumes and boxes cross between the scene and the library in their right place."""

from __future__ import annotations

import time

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from MadeNodes import below, bent, numbered, turned, volume
from SlicerCase import SlicerCase

import DistillSeg

DistillSeg.findLibrary()

from DistillSegPanel import Nodes, Regions  # noqa: E402

from DistillSegLib.errors import GeometryError  # noqa: E402
from DistillSegLib.geometry import same_grid  # noqa: E402
from DistillSegLib.package import load_package  # noqa: E402
from DistillSegLib.places import resources  # noqa: E402

SAMPLE = resources() / "Samples" / "hippocampus-mean.nii.gz"


class VolumeTest(SlicerCase):
    def assertInPlace(self, image, node):
        """Each voxel of the image lies where Slicer's own mathematics puts it."""
        toRas, toWorld = vtk.vtkMatrix4x4(), vtk.vtkGeneralTransform()
        node.GetIJKToRASMatrix(toRas)
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
            node.GetParentTransformNode(), None, toWorld
        )
        voxels = slicer.util.arrayFromVolume(node)
        for k, j, i in ((0, 0, 0), (1, 2, 3), (2, 3, 0), (3, 0, 4)):
            position = toWorld.TransformPoint(toRas.MultiplyPoint((i, j, k, 1))[:3])
            lps = (-position[0], -position[1], position[2])
            index = image.TransformPhysicalPointToContinuousIndex(lps)
            np.testing.assert_allclose(index, (i, j, k), atol=1e-9)
            self.assertEqual(image[i, j, k], voxels[k, j, i])

    def test_straight_oblique_left_handed_and_sheared_volumes_keep_their_place(self):
        for matrix in (
            np.eye(4),
            np.diag([-1.0, -1, 1, 1]),
            turned(),
            turned(mirrored=True),
            turned(shear=0.2),
        ):
            node = volume(numbered(4, 5, 6), matrix)
            self.assertInPlace(Nodes.imageFromVolume(node), node)

    def test_a_linear_transform_above_the_volume_is_applied_to_the_copy_alone(self):
        node = volume(numbered(4, 5, 6), turned(mirrored=True))
        before = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(before)
        inner = below(node, turned())
        outer = below(inner, turned(shear=0.3) @ np.diag([1, 2, 1, 1.0]))
        self.assertInPlace(Nodes.imageFromVolume(node), node)
        after = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(after)
        np.testing.assert_array_equal(
            slicer.util.arrayFromVTKMatrix(before), slicer.util.arrayFromVTKMatrix(after)
        )
        self.assertIs(node.GetParentTransformNode(), inner)
        self.assertIs(inner.GetParentTransformNode(), outer)

    def test_the_sample_is_the_image_that_the_library_reads(self):
        node = slicer.util.loadVolume(str(SAMPLE))
        image, read = Nodes.imageFromVolume(node), sitk.ReadImage(str(SAMPLE))
        self.assertTrue(same_grid(image, read))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(read))

    def test_voxel_types_are_kept(self):
        for kind in ("uint8", "int16", "uint16", "int32", "float32", "float64"):
            image = Nodes.imageFromVolume(volume(numbered(4, 5, 6).astype(kind)))
            self.assertEqual(sitk.GetArrayViewFromImage(image).dtype, kind)

    def test_the_image_does_not_share_its_voxels_with_the_scene(self):
        node = volume(numbered(4, 5, 6))
        image = Nodes.imageFromVolume(node)
        slicer.util.arrayFromVolume(node)[:] = -1
        slicer.mrmlScene.RemoveNode(node)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), numbered(4, 5, 6))

    def test_the_modality_is_that_of_the_dicom_series(self):
        node = volume(numbered(4, 5, 6))
        self.assertEqual(Nodes.modalityOf(node), "")
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(node), "DICOM.Modality", "CT")
        self.assertEqual(Nodes.imageFromVolume(node).GetMetaData("0008|0060"), "CT")

    def test_a_large_volume_is_copied_once_and_quickly(self):
        node = volume(np.zeros((300, 512, 512), np.int16))
        begin = time.perf_counter()
        copy = slicer.util.arrayFromVolume(node).copy()
        one = time.perf_counter() - begin
        del copy
        begin = time.perf_counter()
        Nodes.imageFromVolume(node)
        # A second copy, or a copy as float, would show; fifteen times leaves room for a busy day.
        self.assertLess(time.perf_counter() - begin, 15 * one + 0.1)


class RefusalTest(SlicerCase):
    def refused(self, node, words, remedy=""):
        with self.assertRaises(Nodes.NodeError) as caught:
            Nodes.imageFromVolume(node)
        self.assertIn(words, str(caught.exception))
        self.assertEqual(caught.exception.remedy, remedy)
        return str(caught.exception)

    def test_no_volume(self):
        self.refused(None, "No volume is selected")

    def test_an_empty_volume(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
        self.assertIn("'Nothing'", self.refused(node, "holds no voxels"))

    def test_a_label_map(self):
        node = slicer.util.addVolumeFromArray(
            numbered(2, 3, 4), name="labels", nodeClassName="vtkMRMLLabelMapVolumeNode"
        )
        self.refused(node, "is a label map")

    def test_a_colour_image(self):
        node = slicer.util.addVolumeFromArray(
            np.zeros((4, 5, 6, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode"
        )
        self.refused(node, "3 numbers in each voxel")

    def test_a_node_of_another_kind(self):
        self.refused(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "m"), "is no volume")

    def test_a_single_slice_is_an_image_of_one_slice(self):
        image = Nodes.imageFromVolume(volume(numbered(1, 5, 6)))
        self.assertEqual(image.GetSize(), (6, 5, 1))

    def test_a_transform_that_bends_is_refused_and_a_hardened_copy_is_not(self):
        node = volume(numbered(4, 5, 6))
        transform = bent(node)
        self.assertIn("'bent'", self.refused(node, "harden a copy", Nodes.HARDEN))
        copy = Nodes.hardenedCopy(node)
        self.assertIsNone(copy.GetParentTransformNode())
        self.assertEqual(Nodes.imageFromVolume(copy).GetSize(), copy.GetImageData().GetDimensions())
        self.assertIs(node.GetParentTransformNode(), transform)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), numbered(4, 5, 6))

    def test_a_sequence_is_refused_and_its_current_frame_is_not(self):
        for hasBrowser in (True, False):
            slicer.mrmlScene.Clear()
            sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
            for frame in range(3):
                one = volume(numbered(4, 5, 6) + np.int16(1000 * frame))
                sequence.SetDataNodeAtValue(one, str(frame))
                slicer.mrmlScene.RemoveNode(one)
            if hasBrowser:
                browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "b")
                browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
                slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
                browser.SetSelectedItemNumber(2)
                slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
            self.refused(sequence, "is a sequence", Nodes.CURRENT_FRAME)
            frame = Nodes.currentFrame(sequence)
            voxels = sitk.GetArrayFromImage(Nodes.imageFromVolume(frame))
            np.testing.assert_array_equal(voxels, numbered(4, 5, 6) + 2000 * hasBrowser)


class RegionTest(SlicerCase):
    def roi(self, center=(1, 2, 3), size=(4, 6, 8)):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
        node.SetCenter(*center)
        node.SetSize(*size)
        return node

    def test_a_box_is_a_region_in_mm_ras(self):
        region = Regions.regionFromRoi(self.roi())
        self.assertEqual((region.center_mm, region.size_mm), ((1, 2, 3), (4, 6, 8)))

    def test_a_box_below_a_transform_lies_where_the_views_show_it(self):
        node, matrix = self.roi(), turned()
        below(node, matrix)
        region = Regions.regionFromRoi(node)
        center = (matrix @ [1, 2, 3, 1])[:3]
        half = matrix[:3, :3] @ np.diag([2, 3, 4])
        expected = [
            center + half @ sign
            for sign in np.ndindex(2, 2, 2)
            for sign in [np.array(sign) * 2 - 1]
        ]
        np.testing.assert_allclose(
            sorted(map(tuple, np.round(region.corners_mm(), 6))),
            sorted(map(tuple, np.round(expected, 6))),
        )

    def test_what_is_no_box_is_refused(self):
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "empty")
        inverted = self.roi()
        inverted.SetInsideOut(True)
        for node, words in (
            (None, "No region"),
            (volume(numbered(2, 2, 2)), "No region"),
            (empty, "not drawn yet"),
            (inverted, "inside out"),
        ):
            with self.assertRaises(Nodes.NodeError) as caught:
                Regions.regionFromRoi(node)
            self.assertIn(words, str(caught.exception))
        flat = self.roi(size=(4, 0, 8))
        with self.assertRaises(GeometryError):
            Regions.regionFromRoi(flat)

    def test_the_model_s_box_lies_at_the_crosshair_and_holds_its_field_of_view(self):
        scope = load_package("hippocampus-fast").manifest.scope
        node = volume(np.zeros((80, 100, 300), np.int16), turned(mirrored=True))
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        middle = np.array(Regions.centerOf(node))
        beside = np.add(middle, (5, -8, 4))
        for at, expected in ((beside, beside), ((9999, 0, 0), middle)):
            crosshair.SetCrosshairRAS(*map(float, at))
            box = Regions.modelBox(node, scope)
            np.testing.assert_allclose(box.center_mm, expected, atol=1e-6)
            image = Nodes.imageFromVolume(node)
            found = [part.stop - part.start for part in box.index_box(image)]
            mm = sorted(n * s for n, s in zip(found, image.GetSpacing()[::-1]))
            wanted = sorted((low + high) / 2 for low, high in scope.size_mm)
            np.testing.assert_allclose(mm, wanted, atol=4.1)  # at most a voxel at either end

    def test_a_region_is_shown_as_a_box_and_read_back(self):
        node = volume(np.zeros((80, 100, 300), np.int16), turned(mirrored=True))
        scope = load_package("hippocampus-fast").manifest.scope
        box = Regions.modelBox(node, scope, centerRas=(1.0, 2.0, 3.0))
        roi = Regions.roiFromRegion(box, "box")
        for _again in range(2):
            back = Regions.regionFromRoi(roi)
            np.testing.assert_allclose(back.corners_mm(), box.corners_mm(), atol=1e-6)
            self.assertIs(Regions.roiFromRegion(box, "box", roi), roi)
