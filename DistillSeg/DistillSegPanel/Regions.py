"""Boxes in the scene and regions in mm: what a model is asked about.

Main thread only.
"""

import numpy as np
import slicer
from slicer.i18n import tr as _

from DistillSegLib.regions import Region
from DistillSegPanel.Nodes import NodeError, checkTransform, emptyImageLike, ijkToWorld

CROSSHAIR, VIEWS, MIDDLE = "crosshair", "views", "middle"  # where a box was placed, and why


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


def checkOverlap(region, roiNode, volumeNode):
    """Raise NodeError for a region that has no voxel of the volume."""
    toIjk = np.linalg.inv(ijkToWorld(volumeNode))
    corners = region.corners_mm() @ toIjk[:3, :3].T + toIjk[:3, 3]
    size = np.array(volumeNode.GetImageData().GetDimensions())
    if (corners.max(axis=0) > -0.5).all() and (corners.min(axis=0) < size - 0.5).all():
        return
    raise NodeError(
        _("The region '{roi}' lies outside '{volume}'; move it onto the image.").format(
            roi=roiNode.GetName(), volume=volumeNode.GetName()
        )
    )


def modelBox(volumeNode, scope, centerRas=None):
    """A region of a model's own field of view, along the volume's axes.

    Args:
        scope: of the model, `manifest.scope`.
        centerRas: where; `placeFor` the volume by default.
    """
    sizeMm = tuple((low + high) / 2 for low, high in scope.size_mm)[::-1]
    center = centerRas or placeFor(volumeNode)[0]
    return Region.along(emptyImageLike(volumeNode), tuple(center), sizeMm)


def placeFor(volumeNode):
    """Where a box belongs: (position in RAS and mm, `CROSSHAIR`, `VIEWS` or `MIDDLE`).

    The crosshair if the user moved it to a place in the volume, otherwise where the slice views
    meet, otherwise the volume's middle.
    """
    for found, name in ((crosshair(), CROSSHAIR), (viewCenter(), VIEWS)):
        if found is not None and isInside(found, volumeNode):
            return found, name
    return centerOf(volumeNode), MIDDLE


def crosshair():
    """The crosshair's position (RAS, mm); None where nobody has moved it from the origin."""
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    position = tuple(node.GetCrosshairRAS()) if node is not None else (0.0, 0.0, 0.0)
    return position if any(position) else None


def viewCenter():
    """The point (RAS, mm) that the slice views Red, Green and Yellow share; None without one."""
    normals, offsets = [], []
    for name in ("Red", "Green", "Yellow"):
        node = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}")
        if node is None:
            return None
        matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        normals.append(matrix[:3, 2])
        offsets.append(matrix[:3, 2] @ matrix[:3, 3])
    if abs(np.linalg.det(normals)) < 0.1:  # two views show parallel slices
        return None
    return tuple(np.linalg.solve(normals, offsets).tolist())


def isInside(position, volumeNode):
    """Whether a point (RAS, mm) lies in a volume."""
    index = np.linalg.solve(ijkToWorld(volumeNode), [*position, 1.0])[:3]
    size = np.array(volumeNode.GetImageData().GetDimensions())
    return bool(((index >= -0.5) & (index <= size - 0.5)).all())


def centerOf(volumeNode):
    """The middle of a volume (RAS, mm)."""
    middle = (np.array(volumeNode.GetImageData().GetDimensions()) - 1) / 2
    return tuple((ijkToWorld(volumeNode) @ [*middle, 1.0])[:3].tolist())


def roiFromRegion(region, name, roiNode=None):
    """A box of the Markups module that shows a region, for the user to move."""
    if roiNode is None:
        roiNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
        roiNode.CreateDefaultDisplayNodes()
        display = roiNode.GetDisplayNode()
        display.SetFillVisibility(False)  # the image inside is what the user looks at
        display.SetPropertiesLabelVisibility(False)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(region.axes).T
    matrix[:3, 3] = region.center_mm
    roiNode.SetAndObserveTransformNodeID(None)
    roiNode.SetSize(*region.size_mm)
    roiNode.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))
    return roiNode
