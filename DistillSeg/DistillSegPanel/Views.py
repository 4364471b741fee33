"""Bringing a place into view: in the slice views and, without turning it, in 3D.

Works on the scene's nodes, so that it needs no window.
"""

import math

import slicer

FRAME = 1.1  # times what is to be seen, that the 3D view shows
COMPARE_GROUP = 54  # views of the comparison go their own way


def centerViews(positionRas, sizeMm=0.0):
    """Centre all standard views on a place.

    Args:
        sizeMm: what the 3D views shall show; 0 keeps their distance.
    """
    for sliceNode in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if sliceNode.GetViewGroup() != COMPARE_GROUP:
            sliceNode.JumpSliceByCentering(*positionRas)
    for cameraNode in slicer.util.getNodesByClass("vtkMRMLCameraNode"):
        _moveCamera(cameraNode, positionRas, sizeMm)


def _moveCamera(cameraNode, focalPoint, sizeMm):
    camera = cameraNode.GetCamera()
    offset = [a - b for a, b in zip(cameraNode.GetPosition(), cameraNode.GetFocalPoint())]
    distance = math.hypot(*offset) or 1.0
    wanted = distance
    if sizeMm > 0:
        wanted = FRAME * sizeMm / (2 * math.tan(math.radians(camera.GetViewAngle()) / 2))
    cameraNode.SetFocalPoint(*focalPoint)
    cameraNode.SetPosition(*(f + o * wanted / distance for f, o in zip(focalPoint, offset)))
    cameraNode.ResetClippingRange()
