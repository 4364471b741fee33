"""The views of a comparison: their own layout, group and linking, and leaving without a trace."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import slicer
from SlicerCase import SlicerCase

import DistillSeg

DistillSeg.findLibrary()

from DistillSegPanel import CompareLayout as Layout  # noqa: E402
from DistillSegPanel.CompareDisplay import VIEWS, CompareDisplay, ownDisplay  # noqa: E402


class LayoutCase(SlicerCase):
    def setUp(self):
        super().setUp()
        self.manager = slicer.app.layoutManager()
        self.before = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
        self.manager.setLayout(self.before)
        self.addCleanup(self.manager.setLayout, self.before)

    def segmentation(self, name):
        """A node of two small cubes."""
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        for number in (1, 2):
            image = slicer.vtkOrientedImageData()
            image.SetDimensions(4, 4, 4)
            image.SetOrigin(10.0 * number, 0, 0)
            image.AllocateScalars(3, 1)  # VTK_UNSIGNED_CHAR
            image.GetPointData().GetScalars().Fill(1)
            segment = slicer.vtkSegment()
            segment.SetName(f"structure {number}")
            segment.AddRepresentation("Binary labelmap", image)
            node.GetSegmentation().AddSegment(segment, f"s{number}")
        return node

    def volume(self, rotation=0.0):
        """40 x 40 x 20 voxels of 1 x 1 x 2 mm, turned around x."""
        matrix = np.diag([1.0, 1, 2, 1])
        turn = np.eye(4)
        turn[1:3, 1:3] = [
            [np.cos(rotation), -np.sin(rotation)],
            [np.sin(rotation), np.cos(rotation)],
        ]
        array = np.arange(20 * 40 * 40, dtype=np.int16).reshape(20, 40, 40)
        return slicer.util.addVolumeFromArray(array, ijkToRAS=turn @ matrix, name="volume")


class CompareLayoutTest(LayoutCase):
    def test_it_is_known_after_start_up_under_a_number_of_its_own(self):
        DistillSeg.registerLayout()
        node = self.manager.layoutLogic().GetLayoutNode()
        self.assertTrue(node.IsLayoutDescription(5417))
        views = ET.fromstring(node.GetLayoutDescription(5417)).iter("view")
        names = [view.get("singletontag") for view in views]
        self.assertEqual(
            names,
            ["DistillSegA", "DistillSegB", "DistillSegDiff", "DistillSeg3D", "DistillSegProfile"],
        )

    def test_what_was_shown_comes_back(self):
        for before in (self.before, slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView):
            self.manager.setLayout(before)
            self.assertTrue(Layout.show())
            self.assertTrue(Layout.isShown())
            Layout.show()  # a second time changes nothing
            Layout.hide()
            self.assertEqual(self.manager.layout, before)
        Layout.hide()
        self.assertEqual(self.manager.layout, before)

    def test_a_scene_saved_with_the_views_opens_with_them_and_they_can_be_left(self):
        Layout.show()
        text = slicer.mrmlScene
        path = self.temporary("layout.mrml")
        text.SetURL(path)
        self.assertTrue(text.Commit(path))
        Layout.hide()
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(path)
        self.assertTrue(Layout.isShown())
        self.assertEqual(len(Layout.sliceNodes()), 3)
        Layout.hide()
        self.assertEqual(self.manager.layout, self.before)

    def temporary(self, name):
        import os
        import tempfile

        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return os.path.join(folder.name, name)

    def test_the_three_slice_views_are_linked_and_the_others_are_not(self):
        red = self.manager.sliceWidget("Red")
        Layout.show()
        volume = self.volume()
        Layout.setBackground(volume, "axial")
        self.assertEqual({node.GetViewGroup() for node in Layout.sliceNodes()}, {54})
        for composite in Layout.compositeNodes():
            self.assertTrue(composite.GetLinkedControl() and composite.GetHotLinkedControl())
            self.assertEqual(composite.GetBackgroundVolumeID(), volume.GetID())
        self.assertFalse(red.mrmlSliceCompositeNode().GetLinkedControl())
        self.assertNotEqual(red.mrmlSliceNode().GetViewGroup(), 54)
        before = red.mrmlSliceNode().GetSliceOffset()
        logic = self.manager.sliceWidget(Layout.A).sliceLogic()
        logic.StartSliceOffsetInteraction()
        logic.SetSliceOffset(14.0)
        logic.EndSliceOffsetInteraction()
        for node in Layout.sliceNodes():
            self.assertAlmostEqual(node.GetSliceOffset(), 14.0)
        self.assertEqual(red.mrmlSliceNode().GetSliceOffset(), before)

    def test_a_tilted_volume_is_cut_along_its_own_axes(self):
        Layout.show()
        volume = self.volume(0.2)
        for plane, axis in (("sagittal", 0), ("coronal", 1), ("axial", 2)):
            Layout.setPlane(plane, volume)
            normal = np.zeros(3)
            normal[axis] = 1
            turned = np.array(
                [
                    normal[0],
                    *(
                        np.array([[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]])
                        @ normal[1:]
                    ),
                ]
            )
            for node in Layout.sliceNodes():
                matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
                self.assertAlmostEqual(abs(matrix[:3, 2] @ turned), 1, places=6)

    def test_a_structure_fills_the_pictures(self):
        Layout.show()
        Layout.setBackground(self.volume(), "axial")
        slicer.app.processEvents()
        Layout.frame((10.0, 12.0, 8.0), 6.0, 4.0)
        for node in Layout.sliceNodes():
            width, height, _depth = node.GetFieldOfView()
            self.assertGreaterEqual(width, 1.49 * 6)
            self.assertGreaterEqual(height, 1.49 * 4)
            self.assertLess(min(width / 6, height / 4), 1.51)
            columns, rows = node.GetDimensions()[:2]
            self.assertAlmostEqual(width / height, columns / rows, places=3)
            center = slicer.util.arrayFromVTKMatrix(node.GetXYToRAS()) @ [
                columns / 2,
                rows / 2,
                0,
                1,
            ]
            np.testing.assert_allclose(center[:3], (10, 12, 8), atol=0.05)
        Layout.jumpTo((0.0, 0.0, 4.0))
        self.assertEqual({round(node.GetSliceOffset(), 6) for node in Layout.sliceNodes()}, {4.0})


class CompareDisplayTest(LayoutCase):
    def setUp(self):
        super().setUp()
        self.a, self.b, self.other = (self.segmentation(name) for name in ("a", "b", "other"))
        self.restricted = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode").GetID()
        self.other.GetDisplayNode().AddViewNodeID(self.restricted)
        self.a.GetDisplayNode().SetSegmentVisibility("s2", False)
        self.a.GetDisplayNode().SetOpacity2DFill(0.2)
        Layout.show()
        self.display = CompareDisplay()
        self.display.show(self.a, self.b)

    def views(self, display):
        return [display.IsDisplayableInView(i) for i in Layout.viewIds()]

    def test_each_is_shown_in_its_view_and_nothing_else_is(self):
        own = [ownDisplay(node, letter) for node, letter in ((self.a, "A"), (self.b, "B"))]
        self.assertEqual([self.views(d) for d in own], [[1, 0, 0, 1], [0, 1, 0, 1]])
        for node in (self.a, self.b, self.other):
            self.assertEqual(self.views(node.GetDisplayNode()), [0, 0, 0, 0])
            self.assertTrue(node.GetDisplayNode().IsDisplayableInView(self.restricted))
        self.assertEqual([d.GetVisibility2DOutline() for d in own], [0, 1])
        for identifier in ("s1", "s2"):  # what the user hid is compared too
            self.assertTrue(own[0].GetSegmentVisibility(identifier))

    def test_leaving_brings_back_what_users_had_set(self):
        self.display.solo(self.a, self.b, "s1", "s2")
        self.display.leave()
        for node in (self.a, self.b, self.other):
            for number in range(1, node.GetNumberOfDisplayNodes()):
                ours = node.GetNthDisplayNode(number)
                self.assertFalse(ours.GetVisibility())
                self.assertFalse(ours.IsDisplayableInView(self.restricted))
            self.assertIsNone(node.GetDisplayNode().GetAttribute(VIEWS))
        self.assertEqual(self.a.GetDisplayNode().GetViewNodeIDs(), ())
        self.assertEqual(self.other.GetDisplayNode().GetViewNodeIDs(), (self.restricted,))
        self.assertFalse(self.a.GetDisplayNode().GetSegmentVisibility("s2"))
        self.assertTrue(self.a.GetDisplayNode().GetSegmentVisibility("s1"))
        self.assertAlmostEqual(self.a.GetDisplayNode().GetOpacity2DFill(), 0.2)

    def test_one_structure_alone_and_all_again(self):
        own = [ownDisplay(node, letter) for node, letter in ((self.a, "A"), (self.b, "B"))]

        def seen():
            return [[d.GetSegmentVisibility(i) for i in ("s1", "s2")] for d in own]

        self.display.solo(self.a, self.b, "s1", "s2")
        self.assertEqual(seen(), [[1, 0], [0, 1]])
        self.display.solo(self.a, self.b, "s2", None)
        self.assertEqual(seen(), [[0, 1], [0, 0]])
        self.display.solo(self.a, self.b, None, None)
        self.assertEqual(seen(), [[1, 1], [1, 1]])

    def test_what_is_added_later_is_kept_out_too(self):
        late = self.segmentation("late")
        self.display.show(self.a, self.b)
        self.assertEqual(self.views(late.GetDisplayNode()), [0, 0, 0, 0])
        self.display.leave()
        self.assertEqual(late.GetDisplayNode().GetViewNodeIDs(), ())

    def test_a_segmentation_can_change_after_it_was_compared(self):
        self.display.leave()
        for node in (self.a, self.b):  # displayable managers follow every display node they knew
            node.GetSegmentation().RemoveSegment("s1")
            node.Modified()
        slicer.app.processEvents()
        self.display.show(self.b, self.a)  # the other way round
        own = [ownDisplay(node, letter) for node, letter in ((self.b, "A"), (self.a, "B"))]
        self.assertEqual([self.views(d) for d in own], [[1, 0, 0, 1], [0, 1, 0, 1]])
        self.assertTrue(all(d.GetVisibility() for d in own))
        before = [ownDisplay(node, letter) for node, letter in ((self.a, "A"), (self.b, "B"))]
        self.assertFalse(any(d.GetVisibility() for d in before))
        self.assertEqual(self.a.GetNumberOfDisplayNodes(), 3)
