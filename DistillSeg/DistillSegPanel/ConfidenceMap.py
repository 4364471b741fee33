"""How sure the network was of each voxel, as a volume beside the result.

Main thread only.
"""

import numpy as np
import SimpleITK as sitk
import slicer
from slicer.i18n import tr as _

from DistillSegLib.scope import percentiles

ROLE = "DistillSeg.ConfidenceMap"  # of the reference from an output to its map
# By name, as their ids changed between versions of Slicer. The first is read from a file, the
# others are always there.
COLORS = ("Viridis", "ColdToHotRainbow", "Grey")
NARROWEST = 0.1  # of the window, so that noise of a network that is sure does not fill the colours


def show(image, volumeNode, outputNode):
    """Put a map into the scene, or renew the one of the output.

    Args:
        image: 0 to 1, on the grid of `volumeNode`.

    Returns:
        The volume node.
    """
    node = mapOf(outputNode)
    if node is None:
        name = _("{name} confidence").format(name=outputNode.GetName())
        node = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLScalarVolumeNode", slicer.mrmlScene.GenerateUniqueName(name)
        )
        outputNode.SetNodeReferenceID(ROLE, node.GetID())
    voxels = sitk.GetArrayFromImage(image)
    slicer.util.updateVolumeFromArray(node, voxels)
    node.CopyOrientation(volumeNode)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if (colors := _colors()) is not None:
        display.SetAndObserveColorNodeID(colors.GetID())
    display.AutoWindowLevelOff()
    low = np.floor(20 * percentiles(voxels)[0]) / 20
    display.SetWindowLevelMinMax(float(min(low, 1 - NARROWEST)), 1.0)
    _placeBeside(node, outputNode)
    return node


def mapOf(outputNode):
    """The map of an output, or None."""
    return outputNode.GetNodeReference(ROLE)


def _colors():
    scene = slicer.mrmlScene
    found = (scene.GetFirstNode(name, "vtkMRMLColorTableNode") for name in COLORS)
    return next((node for node in found if node is not None), None)


def _placeBeside(node, outputNode):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(outputNode))
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node)
    hierarchy.SetItemParent(item, parent)
