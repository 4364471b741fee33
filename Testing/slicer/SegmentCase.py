"""A panel whose section Segment is used: made volumes, clicks, and what is said."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from PanelCase import PanelCase


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
