"""Boxes in the scene and regions in mm: what a model is asked about.

Main thread only.
"""

import numpy as np
import slicer
from slicer.i18n import tr as _

from DistillSegLib.regions import Region
from DistillSegPanel.Nodes import NodeError, checkTransform, emptyImageLike, ijkToWorld


def regionFromRoi(roiNode):
    """A box of the Markups module as a region in mm; NodeError if it is none."""
    if roiNode is None or not roiNode.IsA("vtkMRMLMarkupsROINode"):
        raise NodeError(_("No region is selected; draw one with 'Markups', 'ROI'."))
    name = roiNode.GetName()
    if roiNode.GetNumberOfDefinedControlPoints() < 1:
        raise NodeError(_("The region '{name}' is not drawn yet; place it.").format(name=name))
    if roiNode.GetInsideOut():
        raise NodeError(
            _("The region '{name}' is inside out; untick that in 'Markups'.").format(name=name)
        )
    checkTransform(roiNode)
    matrix = slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToWorldMatrix())
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    center, size = [0.0] * 3, [0.0] * 3
    roiNode.GetCenterWorld(center)
    roiNode.GetSizeWorld(size)
    return Region(tuple(center), tuple(size), tuple(tuple(axis) for axis in axes.T.tolist()))


def modelBox(volumeNode, scope, centerRas=None):
    """A region of a model's own field of view, along the volume's axes.

    Args:
        scope: of the model, `manifest.scope`.
        centerRas: where; the crosshair by default, or the volume's middle where the crosshair lies
            outside of it.
    """
    sizeMm = tuple((low + high) / 2 for low, high in scope.size_mm)[::-1]
    center = centerRas or crosshairIn(volumeNode) or centerOf(volumeNode)
    return Region.along(emptyImageLike(volumeNode), tuple(center), sizeMm)


def crosshairIn(volumeNode):
    """The crosshair's position (RAS, mm) if it lies in the volume, otherwise None."""
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is None:
        return None
    position = tuple(crosshair.GetCrosshairRAS())
    index = np.linalg.solve(ijkToWorld(volumeNode), [*position, 1.0])[:3]
    size = np.array(volumeNode.GetImageData().GetDimensions())
    return position if ((index >= -0.5) & (index <= size - 0.5)).all() else None


def centerOf(volumeNode):
    """The middle of a volume (RAS, mm)."""
    middle = (np.array(volumeNode.GetImageData().GetDimensions()) - 1) / 2
    return tuple((ijkToWorld(volumeNode) @ [*middle, 1.0])[:3].tolist())


def roiFromRegion(region, name, roiNode=None):
    """A box of the Markups module that shows a region, for the user to move."""
    if roiNode is None:
        roiNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
        roiNode.CreateDefaultDisplayNodes()
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(region.axes).T
    matrix[:3, 3] = region.center_mm
    roiNode.SetAndObserveTransformNodeID(None)
    roiNode.SetSize(*region.size_mm)
    roiNode.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))
    return roiNode
