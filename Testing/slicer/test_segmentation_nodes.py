"""Segmentations cross between the scene and the library: voxels, names, colours, terminology."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from MadeNodes import below, numbered, turned, volume
from SlicerCase import SlicerCase

import DistillSeg

DistillSeg.findLibrary()

from DistillSegPanel import Nodes, Outputs, Segments  # noqa: E402

from DistillSegLib.geometry import same_grid  # noqa: E402
from DistillSegLib.labels import Label, LabelTable, terminology_entry  # noqa: E402
from DistillSegLib.segmentations import Segmentation  # noqa: E402

HEAD = terminology_entry(("SCT", "5366008", "Hippocampus"))
TABLE = LabelTable((Label(1, "Head ä", (230, 159, 0), HEAD), Label(3, "Tail", (86, 180, 233))))
MODEL = "test-model@1.0.0"


class SegmentationCase(SlicerCase):
    def labelled(self, matrix=None):
        """A volume, and structures in it that are alike in no direction."""
        node = volume(np.zeros((6, 8, 10), np.int16), turned() if matrix is None else matrix)
        labels = np.zeros((6, 8, 10), np.uint8)
        labels[1:3, 2:7, 3:5] = 1
        labels[3, 4:6, 5:9] = 3
        image = sitk.GetImageFromArray(labels)
        image.CopyInformation(Nodes.imageFromVolume(node))
        return node, Segmentation(image, TABLE)

    def mask(self, node, number, volumeNode):
        return slicer.util.arrayFromSegmentBinaryLabelmap(node, f"DistillSeg_{number}", volumeNode)

    def assertHolds(self, node, segmentation, volumeNode):
        labels = sitk.GetArrayFromImage(segmentation.image)
        for number in (1, 3):
            np.testing.assert_array_equal(self.mask(node, number, volumeNode), labels == number)


class SegmentTest(SegmentationCase):
    def test_names_colours_terminology_and_voxels_arrive(self):
        volumeNode, segmentation = self.labelled()
        node = Outputs.put(segmentation, volumeNode, MODEL)
        self.assertHolds(node, segmentation, volumeNode)
        for index, label in enumerate(TABLE):
            segment = node.GetSegmentation().GetNthSegment(index)
            self.assertEqual(segment.GetName(), label.name)
            np.testing.assert_allclose(np.multiply(segment.GetColor(), 255), label.color, atol=1e-3)
            self.assertEqual(Segments.terminologyOf(segment), label.terminology)
            tag = vtk.reference("")
            self.assertTrue(segment.GetTag(Outputs.MODEL, tag))
            self.assertEqual(str(tag), MODEL)
        self.assertEqual(node.GetSegmentation().GetNumberOfLayers(), 1)
        self.assertEqual(Outputs.modelOf(node), MODEL)

    def test_the_reference_geometry_is_the_volume_s(self):
        volumeNode, segmentation = self.labelled()
        node = Outputs.put(segmentation, volumeNode, MODEL)
        self.assertIs(Outputs.volumeOf(node), volumeNode)
        key = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
        reference, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
        text = node.GetSegmentation().GetConversionParameter(key)
        slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, reference, False)
        self.assertEqual(reference.GetExtent(), (0, 9, 0, 7, 0, 5))
        reference.GetImageToWorldMatrix(matrix)
        expected = vtk.vtkMatrix4x4()
        volumeNode.GetIJKToRASMatrix(expected)
        np.testing.assert_allclose(
            slicer.util.arrayFromVTKMatrix(matrix), slicer.util.arrayFromVTKMatrix(expected)
        )

    def test_the_output_moves_with_the_volume_and_lies_beside_it(self):
        volumeNode, segmentation = self.labelled()
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volumeNode), study)
        transform = below(volumeNode, turned())
        node = Outputs.put(segmentation, volumeNode, MODEL)
        self.assertIs(node.GetParentTransformNode(), transform)
        self.assertEqual(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)), study)

    def test_a_segmentation_comes_back_as_it_was_given(self):
        for matrix in (np.eye(4), turned(), turned(mirrored=True)):
            volumeNode, segmentation = self.labelled(matrix)
            below(volumeNode, turned())
            segmentation.image.CopyInformation(Nodes.imageFromVolume(volumeNode))
            node = Outputs.put(segmentation, volumeNode, MODEL)
            back = Segments.segmentationFromNode(node)
            self.assertTrue(same_grid(back.image, segmentation.image))
            labels = sitk.GetArrayFromImage(segmentation.image)
            expected = np.where(labels == 3, 2, labels)  # values count from 1
            np.testing.assert_array_equal(sitk.GetArrayFromImage(back.image), expected)
            self.assertEqual([x.name for x in back.labels], [x.name for x in TABLE])
            self.assertEqual([x.terminology for x in back.labels], [HEAD, ""])
            self.assertEqual(back.warnings, ())

    def test_one_label_map_for_all_and_one_for_each_give_the_same(self):
        volumeNode, segmentation = self.labelled()
        node = Outputs.put(segmentation, volumeNode, MODEL)
        stored = node.GetSegmentation()
        stored.SetSegmentIndex("DistillSeg_3", 0)
        together = Segments.segmentationFromNode(node)
        stored.SeparateSegmentLabelmap("DistillSeg_1")
        self.assertEqual(stored.GetNumberOfLayers(), 2)
        apart = Segments.segmentationFromNode(node)
        self.assertEqual([x.name for x in together.labels], [x.name for x in apart.labels])
        self.assertTrue(same_grid(together.image, apart.image))
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(together.image), sitk.GetArrayFromImage(apart.image)
        )
        self.assertEqual(np.count_nonzero(sitk.GetArrayFromImage(together.image) == 1), 8)

    def test_segments_that_overlap_are_flattened_with_a_warning(self):
        volumeNode, segmentation = self.labelled()
        node = Outputs.put(segmentation, volumeNode, MODEL)
        mine = node.GetSegmentation().AddEmptySegment("mine", "mine")
        both = (sitk.GetArrayFromImage(segmentation.image) == 1).astype(np.uint8)
        both[0] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(both, node, mine, volumeNode)
        back = Segments.segmentationFromNode(node)
        self.assertEqual(len(back.warnings), 1)
        self.assertIn("20 voxels", back.warnings[0])

    def test_what_was_drawn_beyond_the_volume_is_left_out(self):
        volumeNode, segmentation = self.labelled()
        node = Outputs.put(segmentation, volumeNode, MODEL)
        stored = (
            node.GetSegmentation().GetSegment("DistillSeg_1").GetRepresentation(Segments.BINARY)
        )
        moved = [edge + 4 * (n < 2) for n, edge in enumerate(stored.GetExtent())]
        stored.SetExtent(*moved)  # along x, so that the second structure ends outside
        labels = sitk.GetArrayFromImage(segmentation.image)
        expected = np.zeros_like(labels)
        expected[:, :, 4:] = np.where(labels == 3, 2, labels)[:, :, :-4]
        self.assertLess(np.count_nonzero(expected), np.count_nonzero(labels))
        back = Segments.segmentationFromNode(node)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(back.image), expected)

    def test_surfaces_are_converted_in_a_copy(self):
        sphere = vtk.vtkSphereSource()
        sphere.SetRadius(10)
        sphere.SetThetaResolution(40)
        sphere.SetPhiResolution(40)
        sphere.Update()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "ball")
        node.GetSegmentation().SetSourceRepresentationName("Closed surface")
        node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "ball", [1, 0, 0])
        before = [n.GetID() for n in slicer.util.getNodesByClass("vtkMRMLNode")]
        back = Segments.segmentationFromNode(node)
        self.assertFalse(node.GetSegmentation().ContainsRepresentation(Segments.BINARY))
        self.assertEqual(before, [n.GetID() for n in slicer.util.getNodesByClass("vtkMRMLNode")])
        voxel = np.prod(back.image.GetSpacing())
        found = np.count_nonzero(sitk.GetArrayFromImage(back.image)) * voxel
        self.assertAlmostEqual(found / (4 / 3 * np.pi * 1000), 1, delta=0.05)

    def test_segments_without_any_voxel_are_empty_structures(self):
        volumeNode, _segmentation = self.labelled()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "blank")
        node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
        node.GetSegmentation().AddEmptySegment("a", "a")
        back = Segments.segmentationFromNode(node)
        self.assertEqual([label.name for label in back.labels], ["a"])
        self.assertEqual(back.image.GetSize(), (10, 8, 6))
        self.assertFalse(sitk.GetArrayFromImage(back.image).any())

    def test_what_is_no_segmentation_is_refused(self):
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "empty")
        for node, words in (
            (None, "No segmentation"),
            (volume(numbered(2, 2, 2)), "is no segmentation"),
            (empty, "holds no segment"),
        ):
            with self.assertRaises(Nodes.NodeError) as caught:
                Segments.segmentationFromNode(node)
            self.assertIn(words, str(caught.exception))


class OutputTest(SegmentationCase):
    def moved(self, segmentation):
        labels = np.roll(sitk.GetArrayFromImage(segmentation.image), 1, axis=2)
        image = sitk.GetImageFromArray(labels)
        image.CopyInformation(segmentation.image)
        return Segmentation(image, segmentation.labels)

    def test_a_second_run_updates_the_first_with_what_the_user_set(self):
        volumeNode, segmentation = self.labelled()
        node = Outputs.put(segmentation, volumeNode, MODEL)
        node.GetSegmentation().GetSegment("DistillSeg_1").SetName("renamed")
        node.GetDisplayNode().SetSegmentVisibility("DistillSeg_3", False)
        node.CreateClosedSurfaceRepresentation()
        first = vtk.vtkPolyData()
        node.GetClosedSurfaceRepresentation("DistillSeg_1", first)
        again = self.moved(segmentation)
        self.assertIs(Outputs.put(again, volumeNode, MODEL), node)
        self.assertHolds(node, again, volumeNode)
        self.assertEqual(node.GetSegmentation().GetSegment("DistillSeg_1").GetName(), "renamed")
        self.assertFalse(node.GetDisplayNode().GetSegmentVisibility("DistillSeg_3"))
        second = vtk.vtkPolyData()
        self.assertTrue(node.GetClosedSurfaceRepresentation("DistillSeg_1", second))
        shift = np.subtract(second.GetCenter(), first.GetCenter())
        self.assertAlmostEqual(float(np.linalg.norm(shift)), 0.5, places=3)  # a voxel along x

    def test_another_model_gets_an_output_of_its_own(self):
        volumeNode, segmentation = self.labelled()
        node = Outputs.put(segmentation, volumeNode, MODEL)
        other = Outputs.put(segmentation, volumeNode, "other-model@2.0.0")
        self.assertIsNot(node, other)
        replaced = Outputs.put(segmentation, volumeNode, MODEL, other)
        self.assertIs(replaced, other)
        self.assertEqual(Outputs.modelOf(other), MODEL)
        self.assertEqual(len(Outputs.ownSegments(other)), 2)

    def test_an_edited_output_is_left_alone_unless_it_is_chosen(self):
        volumeNode, segmentation = self.labelled()
        node = Outputs.put(segmentation, volumeNode, MODEL)
        self.assertEqual(Outputs.editedSegments(node), [])
        edited = self.mask(node, 1, volumeNode).copy()
        edited[5, 5, 5] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(edited, node, "DistillSeg_1", volumeNode)
        self.assertEqual(Outputs.editedSegments(node), ["DistillSeg_1"])
        self.assertIsNot(Outputs.put(segmentation, volumeNode, MODEL), node)
        np.testing.assert_array_equal(self.mask(node, 1, volumeNode), edited)
        self.assertIs(Outputs.put(segmentation, volumeNode, MODEL, node), node)
        self.assertHolds(node, segmentation, volumeNode)

    def test_segments_of_the_user_stay_when_the_model_runs_again(self):
        volumeNode, segmentation = self.labelled()
        node = Outputs.put(segmentation, volumeNode, MODEL)
        mine = node.GetSegmentation().AddEmptySegment("mine", "mine")
        drawn = np.zeros((6, 8, 10), np.uint8)
        drawn[5, :3, :3] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, node, mine, volumeNode)
        again = self.moved(segmentation)
        self.assertIs(Outputs.put(again, volumeNode, MODEL, node), node)
        self.assertHolds(node, again, volumeNode)
        found = slicer.util.arrayFromSegmentBinaryLabelmap(node, mine, volumeNode)
        np.testing.assert_array_equal(found, drawn)

    def test_what_distillseg_did_not_make_is_never_written_to(self):
        volumeNode, segmentation = self.labelled()
        foreign = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "by hand")
        foreign.GetSegmentation().AddEmptySegment("mine", "mine")
        with self.assertRaises(Nodes.NodeError) as caught:
            Outputs.put(segmentation, volumeNode, MODEL, foreign)
        self.assertIn(
            "'by hand' holds segments that DistillSeg did not make", str(caught.exception)
        )
        self.assertEqual(foreign.GetSegmentation().GetNumberOfSegments(), 1)
        self.assertFalse(foreign.GetAttribute(Outputs.MODEL))

    def test_a_node_that_the_user_made_and_left_empty_is_filled(self):
        volumeNode, segmentation = self.labelled()
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "new")
        self.assertIs(Outputs.put(segmentation, volumeNode, MODEL, empty), empty)
        self.assertHolds(empty, segmentation, volumeNode)

    def test_a_structure_goes_back_to_the_model_s_output_and_its_neighbours_stay(self):
        volumeNode, segmentation = self.labelled()
        node = Outputs.put(segmentation, volumeNode, MODEL)
        for number in (1, 3):
            edited = np.roll(self.mask(node, number, volumeNode), 1, axis=0)
            slicer.util.updateSegmentBinaryLabelmapFromArray(
                edited, node, f"DistillSeg_{number}", volumeNode
            )
        kept = self.mask(node, 3, volumeNode).copy()
        Outputs.reset(node, ["DistillSeg_1"])
        self.assertEqual(Outputs.editedSegments(node), ["DistillSeg_3"])
        np.testing.assert_array_equal(self.mask(node, 3, volumeNode), kept)
        node.GetSegmentation().RemoveSegment("DistillSeg_1")
        Outputs.reset(node)
        self.assertEqual(Outputs.editedSegments(node), [])
        self.assertHolds(node, segmentation, volumeNode)

    def test_the_raw_output_is_hidden_and_goes_with_its_node(self):
        volumeNode, segmentation = self.labelled()
        node = Outputs.put(segmentation, volumeNode, MODEL)
        raw = Outputs.rawOf(node)
        self.assertTrue(raw.GetHideFromEditors())
        self.assertIsNone(raw.GetDisplayNode())
        self.assertEqual(Outputs.removeOrphans(), 0)
        slicer.mrmlScene.RemoveNode(node)
        self.assertEqual(Outputs.removeOrphans(), 1)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), [])

    def test_an_empty_result_has_its_structures_without_voxels(self):
        volumeNode, segmentation = self.labelled()
        empty = Segmentation(segmentation.image * 0, TABLE)
        node = Outputs.put(empty, volumeNode, MODEL)
        self.assertEqual(len(Outputs.ownSegments(node)), 2)
        self.assertEqual(Outputs.editedSegments(node), [])
        self.assertFalse(sitk.GetArrayFromImage(Segments.segmentationFromNode(node).image).any())
